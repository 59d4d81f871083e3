"""All static images as the camera would record them, in few numbers each, and the nearest of them to a recording.

Axes: T time bins, B recordings, n queries, N static images, P polarity, S side of a frame, F features, K components.

1. Every static image is rendered once, at the middle of the camera's ranges. Features are square roots of events in
   parts of the recording, polarities and cells (`features`), so that counting noise is alike everywhere.
2. Principal components of the renderings keep K of F numbers.
3. What two recordings of one image differ by is a covariance in these K numbers: first of renderings that are drawn
   from the camera's ranges, then also of the recordings themselves and the images that they clearly show. Distances
   are measured in units of it; its mean, what the simulator gets wrong about all recordings alike, is taken off.
   A recording is measured by what was learnt from others, since it lies near whatever image it was learnt with.
4. The confidence (`confidence.py`) is learnt on simulated recordings of these images that lie as far from them as the
   recordings do: once with, once without their own image among these.
5. A recording without an answer has candidates: all images at most so many times as far as the nearest that, of the
   simulated recordings without an answer, 95 % have their own image among them. How sure it is that they hold the
   right one, is learnt as the confidence is.

Source: Fisher 1936 and Prince, Elder 2007, "Probabilistic linear discriminant analysis for inferences about identity"
(variation within and between); Lowe 2004 (ratio of the two nearest distances); Stone 1974, "Cross-validatory choice and
assessment of statistical predictions" (parts that are measured by what was learnt from the others).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.pipeline.measurement.recordings import draw_rows
from spikebridge.train.config.simulation_ranges import BY_LOGARITHM, FINE_INSTANTS, LANES, Profile, SimulationRanges
from spikebridge.train.data.simulation import SensorGrid, SimulationDraws, simulate_frames, simulation_draws
from spikebridge.train.errors import RunError
from spikebridge.train.matching.confidence import absent_share, clear_from, confidence, covering

TIME_BINS, PARTS = 10, 5
"""Time bins of a rendering; parts of the recording that features tell apart."""
CELLS = 17
"""Cells of the features along a side, at most."""
FLOOR = 0.02
"""Events that are added before the square root."""
COMPONENTS = 256
LEARNT_FROM = 4000
"""Renderings of which the components are learnt, at most."""
VARIED = 2000
"""Simulated recordings whose variation counts at first."""
SIMULATED_WEIGHT = 200
"""Recordings that the simulated variation counts as, beside that of the recordings themselves."""
RIDGE = 0.05
"""Of the mean variance, added to every variance: directions without any decide nothing."""
ROUNDS, MOST_LEARNT = 3, 2000
"""Rounds, and recordings, of which variation and mean difference are learnt."""
FOLDS = 5
"""Parts of the recordings, each measured by what was learnt from the others."""
ASKED, HIDDEN = 2000, 2
"""Simulated recordings of which the confidence is learnt; one of so many tells what is clear at all."""
FEWEST_CLEAR, COPY = 5, 1.1
"""Recordings that clearly show an image, for anything to be learnt from them; how many times as far as their own image
a near copy of it is, at most."""
HELD, MOST_CANDIDATES = 0.2, 500
"""Confidence that they hold the right image from which on candidates are named; how many are, at most."""
BATCH, RENDERED = 200, 100
"""Recordings compared, and images rendered, at once: more of these do not fit the processor's cache."""
FREE_DRAWS = 4
"""Renderings of an image of which the mean counts where every recording moves in its own way."""
TAUGHT, TESTED = 40, 41
"""Epochs of the draws: no simulated set of a fit has them."""

Shown = Callable[[int, str], Callable[[], None]]
"""Makes a progress bar of (total, what); the function that it returns moves it by one."""


@dataclass(frozen=True)
class Nearest:
    """What was found for n recordings."""

    image: NDArray[np.int64]
    """[n], the nearest image."""
    confidence: NDArray[np.float64]
    """[n], that it is the right one."""
    candidates: list[NDArray[np.int64]]
    """n times [m]: the images one of which it is, nearest first; none where it is answered, or too little is known."""
    held: NDArray[np.float64]
    """[n], that the right one is among the candidates."""


@dataclass(frozen=True)
class _Measure:
    """What recordings of one image differ by."""

    offset: Tensor
    """[K], of the recordings from renderings of what they show."""
    unit: Tensor
    """[K,K], by which numbers are multiplied for this variation to be 1 in every direction."""


@dataclass(frozen=True)
class _Found:
    image: Tensor
    """int64 [n], the nearest."""
    distances: Tensor
    """[n,2], to the nearest and to the second."""

    @property
    def ratio(self) -> Tensor:
        """Return how many times as far the second image is, [n]."""
        return self.distances[:, 1] / self.distances[:, 0]

    def typical(self, clear: float) -> Tensor:
        """Return the median distance of those whose second image is so many times as far; of all where none is."""
        some = self.ratio >= clear
        return self.distances[some if some.any() else slice(None), 0].median()

    def signs(self) -> NDArray[np.float64]:
        """Return what tells right answers from wrong ones, [n,3]: how much farther the second is, how far the first."""
        first, second = self.distances.double().log().T.numpy()
        return np.stack([second - first, first, np.ones(len(first))], 1)


@dataclass(frozen=True)
class _Crossed:
    """Recordings, each measured by what was learnt from others."""

    measures: list[_Measure]
    """Of parts of the recordings, which take turns."""
    asked: Tensor
    """[n,K], the recordings less the offset."""
    found: _Found
    clear: float
    """How many times as far the second image is, at least, of those that clearly show one."""


class Gallery:
    """Static images, rendered.

    Args:
        images: number of images.
        read: returns the images at positions, uint8 [B,1,S,S], placed on the sensor.
        grid: of the frames.
        profile: of the camera.
        seed: of all draws.
        shown: progress.
        keep: begins the name of the file that rendered images are appended to, for the next call with equal arguments
            to go on from; whoever calls names it after these, and deletes it. The sum of the components ends it:
            another processor may find others, in which kept numbers mean nothing. None keeps nothing.
    """

    def __init__(
        self, images: int, read: Callable[[Iterable[int]], Tensor], grid: SensorGrid, profile: Profile,
        *, seed: int, shown: Shown, keep: Path | None = None,
    ) -> None:  # fmt: skip
        self._read, self._grid, self._profile, self._seed = read, grid, profile, seed
        random = np.random.default_rng([seed, TAUGHT])
        drawn = np.sort(random.permutation(images)[:LEARNT_FROM])
        others = np.setdiff1d(np.arange(images), drawn)
        advance = shown(math.ceil(len(drawn) / RENDERED) + math.ceil(len(others) / RENDERED), "render")
        sample = torch.cat(list(self._rendered(drawn.tolist(), advance)))
        self._mean = sample.mean(0)
        self._components = _components(sample - self._mean)  # [F,K]
        self.places = torch.empty(images, self._components.shape[1])  # [N,K]
        self.places[drawn] = self._project(sample)
        self.places[others] = self._other_places(others.tolist(), advance, keep)
        rows = random.integers(images, size=VARIED)
        differences = self._varied(rows, TAUGHT) - self.places[rows]
        self._variation = differences.T @ differences / len(rows)  # [K,K]
        self._measure = _Measure(torch.zeros(len(self._variation)), _unit(self._variation))
        rows = np.random.default_rng([seed, TESTED]).integers(images, size=ASKED)
        self._truth, self._departure = torch.from_numpy(rows), self._varied(rows, TESTED) - self.places[rows]

    def place(self, frames: Tensor) -> Tensor:
        """Return recordings as numbers [n,K] of their frames [T,n,2,S,S] of `TIME_BINS` bins."""
        return self._project(features(frames, free=self._profile.free))

    def learn(self, recordings: Tensor) -> None:
        """Learn from recordings [n,K] how they differ from renderings of what they clearly show."""
        self._measure = self._learnt(recordings)

    def clear_pairs(self, recordings: Tensor) -> tuple[Tensor, Tensor]:
        """Return which recordings [m] of [n,K] clearly show an image, and which image [m]."""
        crossed = self._crossed(recordings)
        rows = (crossed.found.ratio >= crossed.clear).nonzero()[:, 0]
        return rows, crossed.found.image[rows]

    def clearness(self, recordings: Tensor) -> float:
        """Return how many times as far the second image is as the nearest: the mean logarithm, of recordings [n,K]."""
        return float(self._nearest(recordings - self._measure.offset, [self._measure]).ratio.log().mean())

    def around(self, recordings: Tensor, most: int) -> NDArray[np.int64]:
        """Return the images that are nearest to recordings [n,K], so many to each at most, in order."""
        images = self.places @ self._measure.unit
        asked = (recordings - self._measure.offset) @ self._measure.unit
        nearest = torch.cdist(asked, images).topk(min(most, len(images)), largest=False).indices
        found: NDArray[np.int64] = np.unique(nearest.numpy())
        return found

    def render(self, rows: list[int], profile: Profile) -> Tensor:
        """Return the features [B,F] of images at the middle of a camera's ranges."""
        profile, made = middle(profile), list[Tensor]()
        for draw in range(FREE_DRAWS if profile.free else 1):
            numbers = torch.full((len(rows),), draw)
            draws = simulation_draws(self._seed, TAUGHT, numbers, self._grid, device=torch.device("cpu"))
            if not profile.free:
                draws = SimulationDraws(torch.full_like(draws.settings, 0.5), torch.full_like(draws.pixels, 0.5))
            made.append(self._simulate(rows, draws, profile))
        return torch.stack(made).mean(0)

    def answer(self, recordings: Tensor, least: float, advance: Callable[[], None] = lambda: None) -> Nearest:
        """Return the nearest image of each recording [n,K], how sure that is, and candidates where less than `least`.

        Not at all where less than `FEWEST_CLEAR` are nearer to one image than recordings of none would be. `advance` is
        called once for each of `FOLDS` parts of the recordings.
        """
        crossed = self._crossed(recordings, advance)
        found = crossed.found
        unknown, none = np.zeros(len(recordings)), [np.empty(0, np.int64)] * len(recordings)
        if (found.ratio >= crossed.clear).sum() < FEWEST_CLEAR:  # no simulated recording says anything of these
            return Nearest(found.image.numpy(), unknown, none, unknown)
        of_own, there, absent = self._simulated(crossed)
        signs = np.concatenate([there.signs(), absent.signs()])
        right = np.concatenate([(there.image == self._truth).numpy(), np.zeros(len(absent.image), bool)])
        is_absent = np.repeat([False, True], len(absent.image))
        share = absent_share(signs, is_absent, found.signs())
        counts = np.where(is_absent, share / (1 - share), 1.0)
        sure, of_simulated = confidence(signs, right, counts, found.signs(), signs)
        unsure = of_simulated < least
        farther = (of_own / there.distances[:, 0]).numpy()  # own image than nearest
        factor = covering(farther[unsure[: len(farther)]])
        holds = np.concatenate([farther <= factor, np.zeros(len(absent.image), bool)])
        if not holds[unsure].any():
            return Nearest(found.image.numpy(), sure, none, unknown)
        (held,) = confidence(signs[unsure], holds[unsure], counts[unsure], found.signs())
        candidates, parts = none.copy(), np.arange(len(recordings)) % len(crossed.measures)
        for number, measure in enumerate(crossed.measures):
            rows = np.flatnonzero((sure < least) & (held >= HELD) & (parts == number))
            for row, images in zip(rows.tolist(), self._within(crossed.asked[rows], measure, factor), strict=True):
                candidates[row] = images
        return Nearest(found.image.numpy(), sure, candidates, held)

    def _simulated(self, crossed: _Crossed) -> tuple[Tensor, _Found, _Found]:
        """Return how far simulated recordings are from their own image [n], what is nearest, and what is without it.

        They lie as far from their images as the recordings from theirs.
        """
        measures, departure = crossed.measures, self._departure
        for _ in range(ROUNDS):
            asked = self._nearest(self.places[self._truth] + departure, measures)
            departure = departure * (crossed.found.typical(crossed.clear) / asked.typical(crossed.clear))
        of_own = torch.empty(len(departure))
        for number, measure in enumerate(measures):
            mine = slice(number, None, len(measures))
            of_own[mine] = (departure[mine] @ measure.unit).norm(dim=1)
        return of_own, *self._with_and_without(self.places[self._truth] + departure, self._truth, measures)

    def _crossed(self, recordings: Tensor, advance: Callable[[], None] = lambda: None) -> _Crossed:
        """Return recordings [n,K], each measured by what was learnt from the other parts."""
        count, asked, measures = min(FOLDS, len(recordings)), recordings.clone(), list[_Measure]()
        for number in range(count):
            others = recordings[torch.arange(len(recordings)) % count != number]
            measures.append(self._learnt(others[draw_rows(len(others), MOST_LEARNT, self._seed)]))
            asked[number::count] -= measures[-1].offset
            advance()
        found = self._nearest(asked, measures)
        return _Crossed(measures, asked, found, self._clear(found, measures))

    def _learnt(self, recordings: Tensor) -> _Measure:
        """Return how recordings [n,K] differ from renderings of what they clearly show."""
        measure = _Measure(torch.zeros(len(self._variation)), _unit(self._variation))
        if len(recordings) < FEWEST_CLEAR:
            return measure
        for _ in range(ROUNDS):
            found = self._nearest(recordings - measure.offset, [measure])
            clear = found.ratio >= self._clear(found, [measure])
            if clear.sum() < FEWEST_CLEAR:
                return measure
            differences = recordings[clear] - self.places[found.image[clear]]
            offset = differences.mean(0)
            spread = differences - offset
            weight = SIMULATED_WEIGHT + len(spread)
            measure = _Measure(offset, _unit((SIMULATED_WEIGHT * self._variation + spread.T @ spread) / weight))
        return measure

    def _clear(self, found: _Found, measures: Sequence[_Measure]) -> float:
        """Return how many times as far the second image is, at least, of recordings that clearly show one, or its copy.

        Of a near copy as much is learnt as of the image itself.
        """
        rows = torch.arange(0, len(self._truth), HIDDEN)
        own = self._truth[rows]
        there, absent = self._with_and_without(self.places[own] + self._departure[rows], own, measures)
        copied = absent.distances[:, 0] <= COPY * there.distances[:, 0]
        of_others = torch.where(copied, 1.0, absent.ratio)
        return clear_from(found.ratio.double().numpy(), there.ratio.double().numpy(), of_others.double().numpy())

    def _nearest(self, asked: Tensor, measures: Sequence[_Measure]) -> _Found:
        """Return the two nearest images of recordings [n,K], less the offset; measures take turns."""
        images, distances = self._few(asked, measures, 2)
        return _Found(images[:, 0], distances)

    def _with_and_without(self, asked: Tensor, own: Tensor, measures: Sequence[_Measure]) -> tuple[_Found, _Found]:
        """Return the two nearest images as `_nearest` does, and those that are without the own image [n] of each."""
        images, distances = self._few(asked, measures, 3)
        others_first = (images == own[:, None]).byte().sort(dim=1, stable=True).indices
        without = distances.gather(1, others_first)[:, :2]
        return _Found(images[:, 0], distances[:, :2]), _Found(images.gather(1, others_first)[:, 0], without)

    def _few(self, asked: Tensor, measures: Sequence[_Measure], count: int) -> tuple[Tensor, Tensor]:
        """Return so many of the nearest images [n,C], nearest first, and how far they are [n,C]."""
        images, distances = torch.empty(len(asked), count, dtype=torch.int64), torch.empty(len(asked), count)
        for number, measure in enumerate(measures):
            rows = torch.arange(number, len(asked), len(measures))
            for first, squares, common in self._squares(asked[rows], measure):
                batch = rows[first : first + BATCH]
                nearest, images[batch] = squares.topk(count, largest=False)
                distances[batch] = (nearest + common).clamp(min=1e-6).sqrt()
        return images, distances

    def _within(self, asked: Tensor, measure: _Measure, factor: float) -> Iterator[NDArray[np.int64]]:
        """Yield the images at most so many times as far from what is asked [n,K] as the nearest, nearest first.

        None where they are more than `MOST_CANDIDATES`.
        """
        for _, squares, common in self._squares(asked, measure):
            nearest, places = squares.topk(min(MOST_CANDIDATES + 1, squares.shape[1]), largest=False)
            distances = (nearest + common).clamp(min=1e-6).sqrt()
            near = distances <= factor * distances[:, :1]
            for count, images in zip(near.sum(1).tolist(), places.numpy(), strict=True):
                yield images[: count if count <= MOST_CANDIDATES else 0]

    def _squares(self, asked: Tensor, measure: _Measure) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield squared distances of recordings [n,K], less the offset, to all images, a batch at a time.

        Each as where it begins, squares [B,N] less what all images have in common, and that [B,1].
        """
        images = self.places @ measure.unit  # [N,K]
        lengths = (images * images).sum(1)
        for first in range(0, len(asked), BATCH):
            batch = asked[first : first + BATCH] @ measure.unit
            yield first, torch.addmm(lengths, batch, images.T, alpha=-2), (batch * batch).sum(1, keepdim=True)

    def _varied(self, rows: NDArray[np.int64], epoch: int) -> Tensor:
        """Return simulated recordings of images as numbers [n,K], drawn from the camera's ranges."""
        made = []
        for first in range(0, len(rows), RENDERED):
            numbers = torch.arange(first, min(first + RENDERED, len(rows)))
            draws = simulation_draws(self._seed, epoch, numbers, self._grid, device=torch.device("cpu"))
            made.append(self._project(self._simulate(rows[first : first + RENDERED].tolist(), draws, self._profile)))
        return torch.cat(made)

    def _other_places(self, rows: list[int], advance: Callable[[], None], keep: Path | None) -> Tensor:
        """Return images as numbers [n,K]; those that an interrupted call kept are not rendered again.

        Raises:
            RunError: what is to be kept cannot be written.
        """
        made, size = list[Tensor](), self._components.shape[1]
        batch = 4 * size * RENDERED  # bytes
        if keep:
            content = self._mean.numpy().tobytes() + self._components.numpy().tobytes()
            keep = keep.with_name(f"{keep.name}-{hashlib.sha256(content).hexdigest()}")
        try:
            with keep.open("a+b") if keep else nullcontext() as file:
                if file is not None:
                    whole = min(os.fstat(file.fileno()).st_size // batch, len(rows) // RENDERED)
                    file.truncate(whole * batch)
                    file.seek(0)
                    kept = np.frombuffer(file.read(), np.float32).reshape(-1, size)
                    made += torch.from_numpy(kept.copy()).split(RENDERED) if whole else ()
                for _ in made:
                    advance()
                for rendered in self._rendered(rows[len(made) * RENDERED :], advance):
                    made.append(self._project(rendered))
                    if file is not None:
                        file.write(made[-1].numpy().tobytes())
                        file.flush()
        except OSError as error:  # also where the file is closed
            what = "free some space, and give the same command again: it goes on from here"
            raise RunError(f"cannot write {keep}: {error.strerror}; {what}") from None
        return torch.cat(made) if made else torch.empty(0, size)

    def _rendered(self, rows: list[int], advance: Callable[[], None]) -> Iterator[Tensor]:
        """Yield the features [B,F] of images at the middle of the camera's ranges, a batch at a time."""
        for first in range(0, len(rows), RENDERED):
            yield self.render(rows[first : first + RENDERED], self._profile)
            advance()

    def _simulate(self, rows: list[int], draws: SimulationDraws, profile: Profile) -> Tensor:
        images = self._read(rows).float() / 255
        frames = simulate_frames(
            images, draws, self._grid, time_bins=TIME_BINS, profile=profile, instants=FINE_INSTANTS
        )
        return features(frames, free=profile.free)

    def _project(self, found: Tensor) -> Tensor:
        return (found - self._mean) @ self._components


def features(frames: Tensor, *, free: bool) -> Tensor:
    """Return the features [B,F] of frames [T,B,2,S,S].

    Where recordings move each in its own way, neither time nor polarity says anything of the image: they are summed.
    """
    parts = torch.stack([part.sum(0) for part in frames.tensor_split(PARTS)], 1)  # [B,5,2,S,S]
    parts = parts.sum((1, 2)).unsqueeze(1) if free else parts.flatten(1, 2)  # [B,10,S,S], or one
    roots = (F.avg_pool2d(parts, 3, 1, 1) + FLOOR).sqrt()
    return F.avg_pool2d(roots, math.ceil(frames.shape[-1] / CELLS)).flatten(1)


def middle(profile: Profile) -> Profile:
    """Return the camera at the middle of its ranges, without noise."""
    at = {}
    for name in LANES:
        low, high = getattr(profile.ranges, name)
        at[name] = (math.sqrt(low * high) if name in BY_LOGARITHM else (low + high) / 2,) * 2
    at |= {"noise": (0.0, 0.0), "amplitude_spread": (0.0, 0.0)}
    return replace(profile, ranges=SimulationRanges(**at), rest_spread=0.0)


def _components(centred: Tensor) -> Tensor:
    """Return the directions [F,K] along which rows [n,F] differ most."""
    n, count = centred.shape
    kept = min(COMPONENTS, n - 1, count)
    if n < count:
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        return centred.T @ vectors.flip(1)[:, :kept] / values.flip(0)[:kept].clamp(min=1e-9).sqrt()
    return torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, :kept]


def _unit(variation: Tensor) -> Tensor:
    """Return the matrix [K,K] by which numbers are multiplied so that their variation is 1 in every direction."""
    ridge = RIDGE * variation.diag().mean().clamp(min=1e-9) * torch.eye(len(variation))
    return torch.linalg.inv(torch.linalg.cholesky(variation + ridge)).T.contiguous()
