"""All static images as the camera would record them, in few numbers each, and the nearest of them to a recording.

Axes: T time bins, B recordings, n queries, N static images, P polarity, S side of a frame, F features, K components.

1. Every static image is rendered once, at the middle of the camera's ranges. Features are square roots of events in
   parts of the recording, polarities and cells (`features`), so that counting noise is alike everywhere.
2. Principal components of the renderings keep K of F numbers.
3. What two recordings of one image differ by is a covariance in these K numbers: first of renderings that are drawn
   from the camera's ranges, then also of the recordings themselves and the images that they clearly show. Distances
   are measured in units of it; its mean, what the simulator gets wrong about all recordings alike, is taken off.
4. The confidence rises with how much farther the second image is than the first, and how near the first is. How, is
   learnt on simulated recordings of these images that lie as far from them as the recordings do: once with, once
   without their own image among these. How many recordings show none of the images is estimated, and so many of the
   simulated ones count as such.
5. A recording without an answer has candidates: all images at most so many times as far as the nearest that, of the
   simulated recordings without an answer, 95 % have their own image among them. How sure it is that they hold the
   right one, is learnt as the confidence is.

Source: Fisher 1936 and Prince, Elder 2007, "Probabilistic linear discriminant analysis for inferences about identity"
(variation within and between); Lowe 2004 (ratio of the two nearest distances); Saerens, Latinne, Decaestecker 2002,
"Adjusting the outputs of a classifier to new a priori probabilities" (share of recordings of no image); Papadopoulos et
al. 2002, "Inductive confidence machines" (conformal sets: the rank of the distance that covers).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.train.config.simulation_ranges import BY_LOGARITHM, FINE_INSTANTS, LANES, Profile, SimulationRanges
from spikebridge.train.data.simulation import SensorGrid, SimulationDraws, simulate_frames, simulation_draws

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
ASKED, HIDDEN = 2000, 5
"""Simulated recordings of which the confidence is learnt; one of so many tells what is clear at all."""
ABSENT, KNOWN_BEFORE, LEAST_ABSENT = 0.2, 5, 0.01
"""Share of recordings of no image that is expected before any is seen; how many recordings that counts as; the least
that is believed."""
NEARLY_ALL, FEWEST_CLEAR = 0.95, 5
"""Share of the recordings of no image that are no clearer than those that are learnt from; these, at least."""
COVERED, HELD, MOST_CANDIDATES = 0.95, 0.2, 500
"""Share of recordings without an answer whose candidates hold the right image; confidence of that from which on
candidates are named; how many are, at most."""
STEPS = 50
"""Of the logistic regression, and of the estimate of the share."""
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
class _Found:
    image: Tensor
    """int64 [n], the nearest."""
    distances: Tensor
    """[n,2], to the nearest and to the second."""

    @property
    def ratio(self) -> Tensor:
        """Return how many times as far the second image is, [n]."""
        return self.distances[:, 1] / self.distances[:, 0]

    def clearer_than(self, doubtful: float) -> Tensor:
        """Return whether the second image is more than so many times as far, [n]."""
        return self.ratio > doubtful

    def typical(self, doubtful: float) -> Tensor:
        """Return the median distance of those that are clearer; of all where none is."""
        clear = self.clearer_than(doubtful)
        return self.distances[clear if clear.any() else slice(None), 0].median()

    def signs(self) -> NDArray[np.float64]:
        """Return what tells right answers from wrong ones, [n,3]: how much farther the second is, how far the first."""
        first, second = self.distances.double().log().T.numpy()
        return np.stack([second - first, first, np.ones(len(first))], 1)


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
        self._offset = torch.zeros(len(self._variation))
        self._measure = _unit(self._variation)
        rows = np.random.default_rng([seed, TESTED]).integers(images, size=ASKED)
        self._truth, self._departure = torch.from_numpy(rows), self._varied(rows, TESTED) - self.places[rows]

    def place(self, frames: Tensor) -> Tensor:
        """Return recordings as numbers [n,K] of their frames [T,n,2,S,S] of `TIME_BINS` bins."""
        return self._project(features(frames, free=self._profile.free))

    def learn(self, recordings: Tensor) -> None:
        """Learn from recordings [n,K] how they differ from renderings of what they clearly show."""
        for _ in range(ROUNDS):
            found = self._nearest(recordings)
            clear = found.clearer_than(self._doubtful())
            if clear.sum() < FEWEST_CLEAR:
                return
            differences = recordings[clear] - self.places[found.image[clear]]
            self._offset = differences.mean(0)
            spread = differences - self._offset
            self._measure = _unit(
                (SIMULATED_WEIGHT * self._variation + spread.T @ spread) / (SIMULATED_WEIGHT + len(spread))
            )

    def clear_pairs(self, recordings: Tensor) -> tuple[Tensor, Tensor]:
        """Return which recordings [m] of [n,K] clearly show an image, and which image [m]."""
        found = self._nearest(recordings)
        rows = found.clearer_than(self._doubtful()).nonzero()[:, 0]
        return rows, found.image[rows]

    def clearness(self, recordings: Tensor) -> float:
        """Return how many times as far the second image is as the nearest: the mean logarithm, of recordings [n,K]."""
        return float(self._nearest(recordings).ratio.log().mean())

    def around(self, recordings: Tensor, most: int) -> NDArray[np.int64]:
        """Return the images that are nearest to recordings [n,K], so many to each at most, in order."""
        images = self.places @ self._measure
        asked = (recordings - self._offset) @ self._measure
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

        Not at all where less than `FEWEST_CLEAR` are nearer to one image than recordings of none would be.
        """
        found, departure, doubtful = self._nearest(recordings, advance=advance), self._departure, self._doubtful()
        unknown, none = np.zeros(len(recordings)), [np.empty(0, np.int64)] * len(recordings)
        if found.clearer_than(doubtful).sum() < FEWEST_CLEAR:  # no simulated recording says anything of these
            return Nearest(found.image.numpy(), unknown, none, unknown)
        for _ in range(ROUNDS):  # simulated recordings lie as far from their images as the recordings from theirs
            asked = self._nearest(self.places[self._truth] + departure + self._offset)
            departure = departure * (found.typical(doubtful) / asked.typical(doubtful))
        simulated = self.places[self._truth] + departure + self._offset
        there, absent = self._nearest(simulated), self._nearest(simulated, self._truth)
        signs = np.concatenate([there.signs(), absent.signs()])
        right = np.concatenate([(there.image == self._truth).numpy(), np.zeros(len(simulated), bool)])
        is_absent = np.repeat([False, True], len(simulated))
        share = _absent(signs, is_absent, found.signs())
        counts = np.where(is_absent, share / (1 - share), 1.0)
        confidence, of_simulated = _confidence(signs, right, counts, found.signs(), signs)
        unsure = of_simulated < least
        farther = (departure @ self._measure).norm(dim=1) / there.distances[:, 0]  # own image than nearest
        factor = _covering(farther.numpy()[unsure[: len(farther)]])
        holds = np.concatenate([farther.numpy() <= factor, np.zeros(len(simulated), bool)])
        if not holds[unsure].any():
            return Nearest(found.image.numpy(), confidence, none, unknown)
        (held,) = _confidence(signs[unsure], holds[unsure], counts[unsure], found.signs())
        rows = np.flatnonzero((confidence < least) & (held >= HELD))
        candidates = none.copy()
        for row, images in zip(rows.tolist(), self._within(recordings[rows], factor), strict=True):
            candidates[row] = images
        return Nearest(found.image.numpy(), confidence, candidates, held)

    def _doubtful(self) -> float:
        """Return how much farther the second image is, at most, for nearly all recordings of no image that is here."""
        rows = torch.arange(0, len(self._truth), HIDDEN)
        asked = self.places[self._truth[rows]] + self._departure[rows] + self._offset
        return float(self._nearest(asked, self._truth[rows]).ratio.quantile(NEARLY_ALL))

    def _nearest(
        self, recordings: Tensor, hidden: Tensor | None = None, advance: Callable[[], None] = lambda: None
    ) -> _Found:
        """Return the nearest images of recordings [n,K]; `hidden` [n] is left out of the images, -1 for none."""
        found, distances = [], []
        for first, squares, common in self._squares(recordings):
            if hidden is not None:
                of_batch = hidden[first : first + BATCH]
                there = of_batch >= 0
                squares[there.nonzero()[:, 0], of_batch[there]] = torch.inf
            two, places = squares.topk(2, largest=False)
            distances.append((two + common).clamp(min=1e-6).sqrt())
            found.append(places[:, 0])
            advance()
        return _Found(torch.cat(found), torch.cat(distances))

    def _within(self, recordings: Tensor, factor: float) -> Iterator[NDArray[np.int64]]:
        """Yield the images at most so many times as far from recordings [n,K] as the nearest, nearest first.

        None where they are more than `MOST_CANDIDATES`.
        """
        for _, squares, common in self._squares(recordings):
            nearest, places = squares.topk(min(MOST_CANDIDATES + 1, squares.shape[1]), largest=False)
            distances = (nearest + common).clamp(min=1e-6).sqrt()
            near = distances <= factor * distances[:, :1]
            for count, images in zip(near.sum(1).tolist(), places.numpy(), strict=True):
                yield images[: count if count <= MOST_CANDIDATES else 0]

    def _squares(self, recordings: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield squared distances of recordings [n,K] to all images, a batch at a time.

        Each as where it begins, squares [B,N] less what all images have in common, and that [B,1].
        """
        images = self.places @ self._measure  # [N,K]
        lengths = (images * images).sum(1)
        for first in range(0, len(recordings), BATCH):
            asked = (recordings[first : first + BATCH] - self._offset) @ self._measure
            yield first, torch.addmm(lengths, asked, images.T, alpha=-2), (asked * asked).sum(1, keepdim=True)

    def _varied(self, rows: NDArray[np.int64], epoch: int) -> Tensor:
        """Return simulated recordings of images as numbers [n,K], drawn from the camera's ranges."""
        made = []
        for first in range(0, len(rows), RENDERED):
            numbers = torch.arange(first, min(first + RENDERED, len(rows)))
            draws = simulation_draws(self._seed, epoch, numbers, self._grid, device=torch.device("cpu"))
            made.append(self._project(self._simulate(rows[first : first + RENDERED].tolist(), draws, self._profile)))
        return torch.cat(made)

    def _other_places(self, rows: list[int], advance: Callable[[], None], keep: Path | None) -> Tensor:
        """Return images as numbers [n,K]; those that an interrupted call kept are not rendered again."""
        made, size = list[Tensor](), self._components.shape[1]
        batch = 4 * size * RENDERED  # bytes
        if keep:
            content = self._mean.numpy().tobytes() + self._components.numpy().tobytes()
            keep = keep.with_name(f"{keep.name}-{hashlib.sha256(content).hexdigest()}")
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


def _absent(signs: NDArray[np.float64], is_absent: NDArray[np.bool_], found: NDArray[np.float64]) -> float:
    """Return the share of recordings whose image is not there.

    Args:
        signs: of simulated recordings, [n,3].
        is_absent: whether their own image was left out, [n]; of as many as it was not.
        found: signs of the recordings [m,3].
    """
    even = _logistic(signs, is_absent, np.ones(len(signs)))
    odds = np.exp(np.clip(found @ even, -30, 30))
    share = ABSENT
    for _ in range(STEPS):
        absent = share * odds / (share * odds + 1 - share)
        share = (float(absent.sum()) + ABSENT * KNOWN_BEFORE) / (len(odds) + KNOWN_BEFORE)
    return max(share, LEAST_ABSENT)


def _logistic(signs: NDArray[np.float64], right: NDArray[np.bool_], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights [3] of the logistic regression of right answers [n] on signs [n,3], each counted so often.

    A weak pull to 0 keeps them finite where all answers can be told.
    """
    weights, pull = np.zeros(signs.shape[1]), 1e-2 * np.eye(signs.shape[1])
    for _ in range(STEPS):
        share = 1 / (1 + np.exp(-np.clip(signs @ weights, -30, 30)))
        slope = signs.T @ (counts * (share - right)) + pull @ weights
        step = np.linalg.solve(signs.T @ (signs * (counts * share * (1 - share))[:, None]) + pull, slope)
        weights = weights - np.clip(step, -5, 5)
    return weights


def _confidence(
    signs: NDArray[np.float64], right: NDArray[np.bool_], counts: NDArray[np.float64], *asked: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Return the share of right answers at the signs [m,3] that are asked, as simulated recordings [n] have it."""
    weights = _logistic(signs, right, counts)
    return tuple(_rising(signs @ weights, right, counts, each @ weights) for each in asked)


def _covering(farther: NDArray[np.float32]) -> float:
    """Return how many times as far as the nearest the right image is for `COVERED` of recordings [n], and one more.

    With fewer than 19, that of all of them: a further recording is covered less often. 1 without any.
    """
    rank = min(math.ceil((len(farther) + 1) * COVERED), len(farther))
    return max(1.0, float(np.sort(farther)[rank - 1])) if rank else 1.0


def _rising(
    seen: NDArray[np.float64], right: NDArray[np.bool_], counts: NDArray[np.float64], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of right answers [m] at what is asked [m], which rises with what was seen [n] of answers [n].

    Each answer counts so often [n].

    Source: Barlow et al. 1972 (isotonic regression). Differs: half an answer of either kind is added to every level,
    so that none is certain, and between the middles of two levels the share rises evenly, so that it is half where
    right and wrong answers leave a gap.
    """
    order = np.argsort(seen, kind="stable")
    levels = list[tuple[float, float, int]]()  # counts of right answers, of all, and how many these are
    for row in order.tolist():
        levels.append((counts[row] * right[row], counts[row], 1))
        while len(levels) > 1 and levels[-2][0] * levels[-1][1] >= levels[-1][0] * levels[-2][1]:
            above, below = levels.pop(), levels.pop()
            levels.append((below[0] + above[0], below[1] + above[1], below[2] + above[2]))
    rights, sums, lengths = (np.array(column) for column in zip(*levels, strict=True))
    ends = np.cumsum(lengths)
    middles = seen[order][(ends - lengths + ends - 1) // 2]
    shares = np.maximum.accumulate((rights + 0.5) / (sums + 1))
    found: NDArray[np.float64] = np.interp(asked, middles, shares)
    return found
