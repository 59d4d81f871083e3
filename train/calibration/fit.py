"""The search for camera and movement: simulated frames of static images whose moments are those of the recordings.

Axes: T time bins, n recordings, m static images, P polarity, S side of a frame (H, W where it need not be square),
M moments, K parameters, N sets.

1. A closed-form guess of the movement.
2. Damped Gauss-Newton steps over coarse frames, for both signs of the light, with differences of the simulator's
   moments in place of derivatives. All runs share static images and draws: the distance is a function of parameters.
   Where the images fill the frame, the share of the sensor that shows them is open, and so is what lies around them:
   black, white and what continues their border are tried with both signs, from the nearest of some sizes and places.
   The sign that is farther is sought once more along the path that was found with the nearer one. Where neither is
   clearly nearer, what follows is done for both.
3. Twice: N sets of recordings are simulated at parameters around the last estimate, each of other static images and
   draws; a ridge regression from moments to parameters, its penalty chosen by the errors of sets left out, is applied
   to the recordings' moments.
4. More steps over fine frames and finer time, from that of the two places so far that is nearer: a regression is right
   on average, but its place need not be the nearest one. Only now may the path do something beside its legs: a small
   step in each part of the recording; and pixels begin anywhere between their thresholds, if that is nearer than where
   the image left them when it appeared. What the static images of the steps are by chance is measured where these
   begin, beside ten times as many, and taken off everywhere; and once more where they end, for as many steps again.

Where the static image of every recording is known, the steps render these images and compare recording by recording, so
that the chance of a sample of images is no part of a difference; simulated sets show them, too, and what the recordings
of a set differ by from all recordings is taken off.

The errors of sets left out are the uncertainties: they hold the chance of a sample of static images, of the simulator,
and what the moments do not tell. Moments that no simulated set has count as errors of their own. Where the last steps
lead farther away, the way is the uncertainty. Those of the path's small steps follow from the slopes of the last steps.

Source: McFadden 1989, "A method of simulated moments"; Marquardt 1963 (damped steps); Beaumont, Zhang, Balding 2002,
"Approximate Bayesian computation in population genetics" (regression of parameters on statistics); Lavenberg, Welch
1981 (a control variate takes off what is known of the chance of a sample).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.train.calibration.moments import LOGARITHMS, Unit, moments
from spikebridge.train.calibration.parameters import Unknowns, Vector
from spikebridge.train.calibration.start import Start
from spikebridge.train.calibration.state import State
from spikebridge.train.config.profile import BEGIN, SIGN, SURROUND
from spikebridge.train.config.simulation_ranges import FINE_INSTANTS, INSTANTS, MOST_STEPS, Profile
from spikebridge.train.data.simulation import SensorGrid, SimulationDraws, simulate_frames, simulation_draws

MODEL_ERROR = 0.03
"""Deviation that the simulator is allowed in every moment, relative to its kind: no moment counts without end."""
SHRINKAGE = 0.3
"""Share of the covariance of moments that is taken as independent: there are more moments than recordings."""
COARSE_BINS = 10
"""Time bins of the search's steps."""
SIGN_STEPS, STEPS, LAST_STEPS = 2, 6, 3
"""Steps after which the sign of the light is decided; more of them, at most, by each kind of differences; those behind
the regressions, each time."""
BY_SLOPES = 3
"""Times that the last steps go by the same slopes, which cost more than all else."""
NARROW, WIDE = 0.25, 0.7
"""Steps of the differences, in deviations: wide enough to average over the jumps of whole counts; and so wide as to see
beyond hollows, which leads nearer in some cases, astray in others."""
CLEARLY = 0.7
"""Distance of what wide differences lead to, relative to the other's, up to which it is taken."""
LONGEST_STEP = 1.5
"""In deviations, in any parameter."""
GAIN, LAST_GAIN = 0.01, 0.003
"""Part of the distance that a step has to take off for another to follow; of those behind the regressions."""
DAMPING = (0.1, 0.2, 6.0)
"""At first; its factor behind a step that comes nearer, and behind one that does not."""
ATTEMPTS = 4
FIRST_SPREAD, NEXT_SPREAD = 0.7, 2.5
"""Deviations of the first simulated sets; those of the second, in units of the first's errors."""
LEAST_SPREAD, MOST_SPREAD = 0.1, 1.0
PENALTIES = np.geomspace(1e-4, 1e4, 25)
"""Of the regression, per simulated set."""
FARTHEST = 4.0
"""Deviations from the simulated sets' mean at which a moment is cut off: farther out no regression holds."""
SAVE_EVERY = 25
"""Simulated sets."""
LIT, MOST_LIT = 0.1, 0.1
"""Grey value above which a border is lit; share of the images with a lit border up to which all have a margin."""
SIGNS = (False, True)
"""Of the light: whether it is inverted."""
SURROUNDS = (0.0, 1.0, None)
"""What may lie around images that fill the frame."""
SCALES, PLACES = (-1.0, -0.5, 0.0, 0.5, 1.0), (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Sizes of the image and starts of the path, in deviations, that are tried before the steps: they decide where what is
around the image shows, and steps find no way from one side of the frame to the other."""
PROMISING = 2.0
"""Distance of the other sign of the light, relative to that of the nearer, from which on its search ends with the first
steps."""
REVERSED = 10.0
"""The same up to which the other sign is sought once more, from where the nearer one was found: a search that lost its
way tells nothing of a sign."""
CLEAR = 1.5
"""The same of what is one thing or another, from which on it is known."""
RATIO_ERROR, FLOOR_ERROR = 0.15, 0.5
"""Deviations in closed form: of the logarithm of the polarities' ratio; of the dead time, relative to the expected."""


@dataclass(frozen=True)
class Effort:
    """How much is computed."""

    batch: int = 48
    """Static images of a simulated set, at most."""
    batches: int = 10
    """So many times as many stand for all static images where the last steps begin."""
    sets: int = 250
    """Simulated sets of each regression."""

    def searching(self, unknowns: int, begun: int) -> int:
        """Return about how often the simulator runs until the search ends that is begun in so many ways."""
        signs = 1 if begun == len(SIGNS) else len(SIGNS)  # that are followed, as far as can be said
        scanned = (begun - len(SIGNS)) * len(SCALES) * 2 * len(PLACES)
        return scanned + ((3 * signs + signs - 1) * STEPS + begun * SIGN_STEPS) * (unknowns + 2)

    def fitting(self, unknowns: int, begins: int) -> int:
        """Return the same of what follows for one sign of the light and so many ways in which pixels begin."""
        return 2 * self.sets + begins * 2 * LAST_STEPS * (unknowns + 2 * MOST_STEPS + 2)


@dataclass(frozen=True)
class Fit:
    """The nearest camera and movement, and how sure that is."""

    unknowns: Unknowns
    start: Start
    place: Vector
    """[K], in deviations from what was expected."""
    spread: Vector
    """[K], standard deviations of the place: near 1 where the recordings say nothing."""
    others: dict[str, float]
    """Of what is one thing or another, `inverted`, `surround` and `appeared`: distance of the nearest fit with another,
    relative to that of this one; 1 where nothing tells them apart. Not in it is what nothing was tried beside."""
    remainders: dict[str, float]
    """Root mean square of the differences of each kind of moments, relative to that of the moments themselves."""
    distance: float = math.inf
    """From the recordings, infinite where nothing was compared with them."""
    rivals: tuple[Fit, ...] = ()
    """With the other sign of the light or the other beginning, where neither is clearly nearer; the nearest first."""

    def decides(self, name: str) -> bool:
        """Return whether the recordings speak clearly for what was found of one of `others`."""
        return self.others.get(name, 0.0) > CLEAR


def without_images(
    frames: Tensor, start: Start, *, sensor: tuple[int, int], floor: float | None = None, longer: float = 1.0
) -> Fit:
    """Return what recordings say without a static image: movement, polarities and dead time, in closed form.

    Light and contrast of what was seen are not known, and so no threshold, nor the sign of the light. Around closed
    shapes the light rises as much as it falls, so that the polarities' thresholds are as their events, the other way
    round.
    """
    start = replace(start, longer=longer)
    unknowns = Unknowns.from_start(start, sensor=sensor, inverted=False, floor=floor)
    names = [p.name for p in unknowns.parameters]
    place, spread = np.zeros(len(names)), np.ones(len(names))
    off, on = frames.sum((0, 1, 3, 4)).tolist()
    ratio = names.index("off_ratio")
    parameter = unknowns.parameters[ratio]
    place[ratio] = parameter.place(min(max((on + 1) / (off + 1), parameter.low), parameter.high))
    spread[ratio] = RATIO_ERROR / parameter.deviation
    if floor is not None:
        spread[names.index("dead_time")] = FLOOR_ERROR
    return Fit(unknowns, start, place, spread, {SIGN: 1.0, BEGIN: 1.0}, {})


def fit(
    frames: Tensor,
    images: Tensor,
    grid: SensorGrid,
    start: Start,
    *,
    sensor: tuple[int, int],
    floor: float | None = None,
    longer: float = 1.0,
    seed: int = 0,
    effort: Effort = Effort(),
    shown: Tensor | None = None,
    state: State | None = None,
    advance: Callable[[], None] = lambda: None,
    expect: Callable[[int], None] = lambda runs: None,
) -> Fit:
    """Fit camera and movement to recordings, whether or not it is known which static image each shows.

    Args:
        frames: float32 [T,n,2,H,W], one recording or more, each with events.
        images: float32 [m,1,H,W] in [0, 1], of the kind that the recordings show, as the pipeline places them.
        grid: of the frames.
        start: the movement as it is guessed.
        sensor: (W, H) in pixels.
        floor: shortest time between events of one pixel, share of the recording; None where it is not known.
        longer: how many times as long as usual recordings are, see `parameters.longer_than_usual`.
        seed: of all draws.
        effort: how much is computed.
        shown: float32 [n,1,H,W], the image that each recording shows; None where that is not known.
        state: what an interrupted fit with the same arguments left, and what this one leaves.
        advance: called after each run of the simulator.
        expect: called when the search ends, with about how many runs follow.
    """
    state = state or State(None, "")
    start, fills = replace(start, longer=longer), _fill(images)
    begun = state.get("search")
    if begun is None:
        begun = _search(_coarsen(frames), images, grid, sensor, start, floor, seed, effort, shown, state, advance)
        state.put("search", begun)
    expect(len(begun) * effort.fitting(begun.shape[1] - 4, 1 if fills else 2))
    fits = list[Fit]()
    for inverted, surround, _, other_surround, *nearest in begun:
        unknowns = Unknowns.from_start(
            start, sensor=sensor, inverted=bool(inverted), floor=floor, fills=fills, surround=_around(surround)
        )
        name, searched = f"inverted {unknowns.inverted}", np.array(nearest)
        place, spread = searched, np.full(len(searched), FIRST_SPREAD)
        for number, seen in enumerate((_coarsen(frames), frames)):
            sets = _Sets(seen, images, grid, unknowns, effort, seed, shown, (INSTANTS, FINE_INSTANTS)[number])
            spread = np.clip(spread, LEAST_SPREAD, MOST_SPREAD)
            places, made = sets.simulate(place, spread, number, state, name, advance)
            place, errors = _regress(places, made, sets.mean)
            place = np.clip(place, *unknowns.bounds())
            spread = NEXT_SPREAD * errors
        if not start.free:
            unknowns = unknowns.with_steps(min(len(frames), MOST_STEPS), sensor=sensor)
            more = np.zeros(2 * unknowns.steps)
            place, searched = np.r_[place, more], np.r_[searched, more]
        begins, rows = (True, False) if unknowns.appeared else (False,), list[Vector]()
        for own in (replace(unknowns, appeared=appeared) for appeared in begins):
            key = f"{name}, appeared {own.appeared}: end"
            if (row := state.get(key)) is None:
                near = place
                for again in range(2):
                    target = _target(frames, images, grid, seed, effort, shown, own.profile(near), last=True)
                    search = _Search(target, own, advance, last=True)
                    begin = near if again else min(place, searched, key=search.distance_of)
                    near = search.run(begin, LAST_STEPS, NARROW).place
                row = np.r_[search.distance, own.appeared, search.place, search.spread]
                state.put(key, row)
            rows.append(row)
        known = len(errors)  # to the regressions, which have no steps
        for distance, appeared, *both in rows:
            found, around = np.split(np.array(both), 2)
            own = replace(unknowns, appeared=bool(appeared))
            within = np.minimum(np.maximum(errors, np.abs(found - place)[:known]), 1.0)
            others = {} if math.isnan(other_surround) else {SURROUND: other_surround}
            remainders = sets.remainders(own.profile(found))
            fits.append(Fit(own, start, found, np.r_[within, around[known:]], others, remainders, float(distance)))
    if shown is not None:  # each was measured by what its own camera leaves of these images, a wrong one the most
        best = min(fits, key=lambda fit: fit.distance)
        target = _target(frames, images, grid, seed, effort, shown, best.unknowns.profile(best.place), last=True)
        fits = [replace(one, distance=_Search(target, one.unknowns, advance).distance_of(one.place)) for one in fits]
    return _beside_rivals(fits, float(begun[0, 2]))


def _beside_rivals(fits: list[Fit], searched: float) -> Fit:
    """Return the nearest fit, with those that it is not clearly nearer than.

    `searched` is how much farther the search of the other sign ended, where none of the fits is of that.
    """
    fits = sorted(fits, key=lambda fit: fit.distance)
    of_sign = {sign: [fit for fit in fits if fit.unknowns.inverted == sign] for sign in SIGNS}
    beside = list[Fit]()
    for fit in fits:
        own, other = of_sign[fit.unknowns.inverted], of_sign[not fit.unknowns.inverted]
        ratio = _farther(other[0], own[0]) if other else searched
        begins = [one for one in own if one.unknowns.appeared != fit.unknowns.appeared]
        begun = {BEGIN: _farther(begins[0], fit)} if begins else {}
        beside.append(replace(fit, others={SIGN: ratio} | fit.others | begun))
    first, *rest = beside
    open_ = [fit for fit in rest if all(fit.others.get(name, 1.0) * CLEAR >= 1 for name in (SIGN, BEGIN))]
    return replace(first, rivals=tuple(open_))


def _farther(one: Fit, other: Fit) -> float:
    """Return how many times as far from the recordings one fit is as another."""
    return one.distance / max(other.distance, 1e-9)


def _drawn(images: Tensor, seed: int, effort: Effort, *, batches: int = 1) -> NDArray[np.int64]:
    """Return which static images the steps see, or these and further ones."""
    return np.random.default_rng([seed, 0]).permutation(len(images))[: batches * effort.batch]


def _target(
    frames: Tensor, images: Tensor, grid: SensorGrid, seed: int, effort: Effort, shown: Tensor | None, near: Profile,
    *, last: bool = False,
) -> _Target:  # fmt: skip
    """Return what the steps are to meet; with the images of all recordings, of as many recordings as a set has.

    For the `last` steps more static images than they see stand for all, and time is finer.
    """
    instants = FINE_INSTANTS if last else INSTANTS
    if shown is not None:
        rows = _drawn(shown, seed, effort)
        return _Target(frames[:, rows], shown[rows], grid, seed, instants=instants, near=near)
    rows, many = _drawn(images, seed, effort), _drawn(images, seed, effort, batches=effort.batches)
    all_near = (near, images[many]) if last else None
    return _Target(frames, images[rows], grid, seed, instants=instants, all_near=all_near)


def _search(
    frames: Tensor, images: Tensor, grid: SensorGrid, sensor: tuple[int, int], start: Start, floor: float | None,
    seed: int, effort: Effort, shown: Tensor | None, state: State, advance: Callable[[], None],
) -> NDArray[np.float64]:  # fmt: skip
    """Return a row for each sign of the light that may be right, the nearer one first, [1 or 2, 4 + K].

    In it are the sign (1 = inverted), the surround (nan = none), the distance of the other sign relative to that of the
    nearer one, that of the nearest other surround after the first steps (nan where there is no other), and the place.
    """
    searches, target, fills = list[_Search](), None, _fill(images)
    for inverted, surround in to_begin(images):
        unknowns = Unknowns.from_start(
            start, sensor=sensor, inverted=inverted, floor=floor, fills=fills, surround=surround
        )
        expected = unknowns.profile(np.zeros(len(unknowns.parameters)))
        target = target or _target(frames, images, grid, seed, effort, shown, expected)
        search = _Search(target, unknowns, advance)
        if not search.restore(state, "begun"):
            if surround is not None:
                search.begun = search.nearest_begin(SCALES)
            search.run(search.begun, SIGN_STEPS, NARROW)
            search.keep(state, "begun")
        searches.append(search)
    searches.sort(key=_distance)
    of_sign = {sign: [search for search in searches if search.unknowns.inverted == sign] for sign in SIGNS}
    best = [alike[0] for alike in of_sign.values()]
    other_surround = {sign: _to_next(alike) for sign, alike in of_sign.items()}
    nearest = min(search.distance for search in best)
    for search in best:
        if search.distance <= PROMISING * nearest and not search.restore(state, "finished"):
            search.finish()
            search.keep(state, "finished")
    best.sort(key=_distance)
    if _to_next(best) < REVERSED:
        reverse = best[0].reversed()
        if not reverse.restore(state, "reversed"):
            reverse.run(reverse.begun, STEPS, NARROW)
            reverse.keep(state, "reversed")
        if reverse.distance < best[1].distance:
            if reverse.unknowns.surround != best[1].unknowns.surround:
                other_surround[reverse.unknowns.inverted] = best[1].distance / max(reverse.distance, 1e-9)
            best[1] = reverse
            best.sort(key=_distance)
    ratio = _to_next(best)
    return np.array(
        [
            np.r_[u.inverted, _number(u.surround), ratio, other_surround[u.inverted], search.place]
            for search in (best if ratio < CLEAR else best[:1])
            for u in (search.unknowns,)
        ]
    )


def _distance(search: _Search) -> float:
    return search.distance


def _to_next(searches: Sequence[_Search]) -> float:
    """Return the distance of the second of searches, the nearest first, relative to the first's; nan for one search."""
    return searches[1].distance / max(searches[0].distance, 1e-9) if len(searches) > 1 else math.nan


def _number(surround: float | None) -> float:
    """Return a surround as it stands in an array."""
    return math.nan if surround is None else surround


def _around(number: float) -> float | None:
    """Return the surround of a number in an array."""
    return None if math.isnan(number) else float(number)


def to_begin(images: Tensor) -> list[tuple[bool, float | None]]:
    """Return signs of the light and surrounds with which searches begin."""
    return list(itertools.product(SIGNS, SURROUNDS if _fill(images) else (None,)))


def _fill(images: Tensor) -> bool:
    """Return whether images [m,1,S,S] fill their frame; those with a black margin were placed as the sensor saw."""
    border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)  # [m,1,4S]
    return float((border.amax((1, 2)) > LIT).float().mean()) > MOST_LIT


def _coarsen(frames: Tensor) -> Tensor:
    """Return frames of fewer, whole bins, near `COARSE_BINS`."""
    T = len(frames)
    together = max(1, T // COARSE_BINS)
    while T % together:
        together -= 1
    return frames.view(T // together, together, *frames.shape[1:]).sum(1)


class _Moments:
    """All moments of some recordings; those of a set are relative to its events, so that only `rate` tells how many.

    Otherwise a camera of too few events would be near any recordings: it differs from them in one common factor, by
    which recordings differ among themselves, too, and what else is wrong weighs less.
    """

    def __init__(self, frames: Tensor, unit: Unit) -> None:
        parts = moments(frames, unit)
        self.sizes = [(name, values.shape[1]) for name, values in parts.items()]
        self.each: NDArray[np.float64] = torch.cat(list(parts.values()), 1).double().numpy()
        """[n,M]."""
        self.events: Vector = frames.sum((0, 2, 3, 4)).double().numpy() / unit.events
        """[n], relative to the recordings that are fitted."""
        self.counted = np.concatenate([np.full(size, float(name != LOGARITHMS)) for name, size in self.sizes])
        """[M], 1 where moments grow with the events."""

    def mean(self, rows: NDArray[np.int64] | slice = slice(None)) -> Vector:
        """Return the moments of the set, or of some of its recordings: [M]."""
        events = max(float(self.events[rows].mean()), 1e-3)
        found: Vector = self.each[rows].mean(0) / np.where(self.counted > 0, events, 1.0)
        return found

    def deviations(self) -> NDArray[np.float64]:
        """Return what each recording moves the set's moments by, times the number of recordings: [n,M]."""
        mean, events = self.mean(), max(float(self.events.mean()), 1e-3)
        apart = self.each - np.where(self.counted > 0, self.events[:, None], 1.0) * mean
        found: NDArray[np.float64] = apart / np.where(self.counted > 0, events, 1.0)
        return found


class _Target:
    """Recordings as the steps see them: static images and draws that stay, and the moments that are to be met."""

    def __init__(
        self, frames: Tensor, images: Tensor, grid: SensorGrid, seed: int, *, instants: int = FINE_INSTANTS,
        near: Profile | None = None, all_near: tuple[Profile, Tensor] | None = None,
    ) -> None:  # fmt: skip
        """`near` is a camera that is not far off, where `images` are those of the recordings, in their order.

        Where they are not, such a camera and many images [M,1,S,S] may say what `images` are by chance: what moments of
        theirs differ by there is taken off everywhere.
        """
        self.images, self.grid, self.time_bins, self.instants = images, grid, len(frames), instants
        self.draws = simulation_draws(seed, 0, torch.arange(len(images)), grid, device=torch.device("cpu"))
        self.unit = Unit.of(frames, whole_counts=grid.counts_whole)
        seen = _Moments(frames, self.unit)
        self.mean, each = seen.mean(), seen.deviations()
        sizes = [size for _, size in seen.sizes]
        allowed = np.concatenate(
            [
                np.full(size, MODEL_ERROR * np.sqrt((part**2).mean()) + 1e-6)
                for size, part in zip(sizes, np.split(self.mean, np.cumsum(sizes)[:-1]), strict=True)
            ]
        )
        share = 1 / len(each) + 1 / len(images)
        if near is not None:
            made = self.simulate(near)
            each, share = each - _Moments(made, self.unit).deviations(), 1 / len(each)
        if all_near is not None:
            camera, many = all_near
            self.mean = (
                self.mean + _Moments(self.simulate(camera), self.unit).mean() - self._mean_of(many, camera, seed)
            )
            share = 1 / len(each) + 1 / len(many)
        covariance = np.cov(each.T) * share if len(each) > 1 else np.diag(self.mean**2)
        covariance = (1 - SHRINKAGE) * covariance + np.diag(SHRINKAGE * np.diag(covariance) + allowed**2)
        self.whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        """[M,M], makes differences independent, with a standard deviation of 1 where they are chance."""

    def _mean_of(self, images: Tensor, camera: Profile, seed: int) -> Vector:
        """Return the moments of recordings of many images, with draws of their own."""
        made, first = [], len(self.images)
        for part in images.split(first):
            numbers = torch.arange(first, first := first + len(part))
            draws = simulation_draws(seed, 0, numbers, self.grid, device=torch.device("cpu"))
            made.append(self._simulated(part, draws, camera))
        return _Moments(torch.cat(made, 1), self.unit).mean()

    def remainder(self, unknowns: Unknowns, place: Vector) -> Vector:
        """Return the whitened differences of the means, [M]: recordings less simulated ones."""
        frames = self.simulate(unknowns.profile(place))
        found: Vector = self.whitening @ (self.mean - _Moments(frames, self.unit).mean())
        return found

    def simulate(self, profile: Profile) -> Tensor:
        """Return frames [T,m,2,S,S] of the images with the draws."""
        return self._simulated(self.images, self.draws, profile)

    def _simulated(self, images: Tensor, draws: SimulationDraws, profile: Profile) -> Tensor:
        return simulate_frames(
            images, draws, self.grid, time_bins=self.time_bins, profile=profile, instants=self.instants
        )


class _Search:
    """Damped Gauss-Newton steps; what is expected beforehand counts as one observation of every parameter."""

    def __init__(self, target: _Target, unknowns: Unknowns, advance: Callable[[], None], *, last: bool = False) -> None:
        self.target, self.unknowns, self._advance = target, unknowns, advance
        self._gain, self._by_slopes = (LAST_GAIN, BY_SLOPES) if last else (GAIN, 1)
        self.low, self.high = unknowns.bounds()
        self.place = self.begun = np.zeros(len(unknowns.parameters))
        self.distance = np.inf
        self.spread: Vector = np.ones(len(self.place))
        """[K], standard deviations of the place if differences were linear, as of the last step; what is left of the
        differences beyond chance counts as chance."""

    def run(self, place: Vector, steps: int, difference: float) -> _Search:
        """Go from a place until little is gained, at most so many steps, by differences over so many deviations."""
        remainder = self._at(place)
        self.place, self.distance = place, self._distance(place, remainder)
        damping = DAMPING[0]
        for _ in range(steps):
            slopes = self._slopes(remainder, difference)
            normal = slopes.T @ slopes
            beyond = max(1.0, float((remainder**2).mean()))
            self.spread = np.sqrt(np.diag(np.linalg.inv(normal / beyond + np.eye(len(normal)))))
            before = self.distance
            for _ in range(self._by_slopes):
                gradient, reached = slopes.T @ remainder + self.place, self.distance
                for _ in range(ATTEMPTS):
                    matrix = normal + np.eye(len(normal)) + damping * np.diag(np.diag(normal))
                    step = np.clip(-np.linalg.solve(matrix, gradient), -LONGEST_STEP, LONGEST_STEP)
                    tried = np.clip(self.place + step, self.low, self.high)
                    found = self._at(tried)
                    if (distance := self._distance(tried, found)) < reached:
                        self.place, self.distance, remainder = tried, distance, found
                        damping *= DAMPING[1]
                        break
                    damping *= DAMPING[2]
                else:
                    break
            if before - self.distance < self._gain * before:
                break
        return self

    def nearest_begin(self, scales: Sequence[float]) -> Vector:
        """Return the nearest of some sizes of the image, in deviations, and starts of the path."""
        names, reached = [parameter.name for parameter in self.unknowns.parameters], []
        for scale in scales:
            place = np.zeros(len(names))
            place[names.index("scale")] = scale
            distance = self.distance_of(place)
            for start in [names.index(name) for name in ("x_start", "y_start") if name in names]:
                tried = np.tile(place, (len(PLACES), 1))
                tried[:, start] = PLACES
                distance, place = min(((self.distance_of(one), one) for one in tried), key=lambda found: found[0])
            reached.append((distance, place))
        return min(reached, key=lambda found: found[0])[1]

    def keep(self, state: State, name: str) -> None:
        """Keep where the search is."""
        state.put(self._name(name), np.r_[self.distance, self.begun, self.place])

    def restore(self, state: State, name: str) -> bool:
        """Go to where an interrupted fit kept it; return whether that is there."""
        kept = state.get(self._name(name))
        if kept is None:
            return False
        self.distance, (self.begun, self.place) = float(kept[0]), np.split(kept[1:], 2)
        return True

    def _name(self, name: str) -> str:
        return f"{name}: inverted {self.unknowns.inverted}, surround {self.unknowns.surround}"

    def distance_of(self, place: Vector) -> float:
        """Return how far from the recordings a place is."""
        return self._distance(place, self._at(place))

    def reversed(self) -> _Search:
        """Return a search of the other sign, before the reverse of what lies around, that begins where this one is."""
        surround = None if self.unknowns.surround is None else 1 - self.unknowns.surround
        unknowns = replace(self.unknowns, inverted=not self.unknowns.inverted, surround=surround)
        reverse = _Search(self.target, unknowns, self._advance)
        reverse.begun = self.place
        return reverse

    def finish(self) -> None:
        """Go on; and again from the nearest beginning, first by wide differences, which is taken if clearly nearer."""
        self.run(self.place, STEPS, NARROW)
        wide = _Search(self.target, self.unknowns, self._advance)
        wide.run(self.begun if self.begun.any() else self.nearest_begin((0.0,)), STEPS, WIDE)
        wide.run(wide.place, STEPS, NARROW)
        if wide.distance < CLEARLY * self.distance:
            self.place, self.distance = wide.place, wide.distance

    def _at(self, place: Vector) -> Vector:
        self._advance()
        return self.target.remainder(self.unknowns, place)

    def _slopes(self, remainder: Vector, difference: float) -> NDArray[np.float64]:
        """Return the differences of the remainders by each parameter, [M,K]."""
        slopes = np.empty((len(remainder), len(self.place)))
        for k in range(len(self.place)):
            step = difference if self.place[k] + difference <= self.high[k] else -difference
            moved = self.place.copy()
            moved[k] += step
            slopes[:, k] = (self._at(moved) - remainder) / step
        return slopes

    @staticmethod
    def _distance(place: Vector, remainder: Vector) -> float:
        return float((remainder**2).sum() + (place**2).sum())


class _Sets:
    """Simulated sets of recordings at many places, each of its own static images and draws."""

    def __init__(
        self, frames: Tensor, images: Tensor, grid: SensorGrid, unknowns: Unknowns, effort: Effort, seed: int,
        shown: Tensor | None, instants: int = FINE_INSTANTS,
    ) -> None:  # fmt: skip
        self.instants = instants
        self.shown, self.images, self.grid = shown, images, grid
        self.unknowns, self.sets, self.seed = unknowns, effort.sets, seed
        self.time_bins, self.batch = len(frames), min(effort.batch, frames.shape[1])
        self.unit = Unit.of(frames, whole_counts=grid.counts_whole)
        self.seen = _Moments(frames, self.unit)
        self.mean = self.seen.mean()

    def simulate(
        self, centre: Vector, spread: Vector, number: int, state: State, name: str, advance: Callable[[], None]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the places [N,K] and the mean moments [N,M] of simulated sets around a centre."""
        random = np.random.default_rng([self.seed, 1 + number])
        places = np.clip(centre + spread * random.standard_normal((self.sets, len(centre))), *self.unknowns.bounds())
        rows = self._rows(random, self.sets)
        done = state.get(f"{name}: sets {number}")
        made = [] if done is None else list(done)
        for _ in made:
            advance()
        for i in range(len(made), self.sets):
            made.append(self._set(self.unknowns.profile(places[i]), rows[i], 1 + number, i))
            advance()
            if (i + 1) % SAVE_EVERY == 0 or i + 1 == self.sets:
                state.put(f"{name}: sets {number}", np.array(made))
        return places, np.array(made)

    def _set(self, profile: Profile, rows: NDArray[np.int64], epoch: int, number: int) -> Vector:
        first = number * self.batch
        numbers = torch.arange(first, first + self.batch)
        draws = simulation_draws(self.seed, epoch, numbers, self.grid, device=torch.device("cpu"))
        images = self.images[rows] if self.shown is None else self.shown[rows]
        frames = simulate_frames(
            images, draws, self.grid, time_bins=self.time_bins, profile=profile, instants=self.instants
        )
        found = _Moments(frames, self.unit).mean()
        return found if self.shown is None else found - self.seen.mean(rows) + self.mean

    def _rows(self, random: np.random.Generator, sets: int) -> NDArray[np.int64]:
        """Draw which images the recordings of each set show, [sets, batch]; those of known recordings once in a set."""
        if self.shown is None:
            return random.integers(len(self.images), size=(sets, self.batch))
        return np.argsort(random.random((sets, len(self.shown))), 1)[:, : self.batch]

    def remainders(self, profile: Profile) -> dict[str, float]:
        """Return how far the moments of a large simulated set are from the recordings', by kind."""
        rows = self._rows(np.random.default_rng([self.seed, 9]), 4)
        made = np.mean([self._set(profile, rows[i], 9, i) for i in range(4)], 0)
        found, first = {}, 0
        for name, size in self.seen.sizes:
            part = slice(first, first := first + size)
            unit = 1.0 if name == LOGARITHMS else max(float((self.mean[part] ** 2).mean()), 1e-12)
            found[name] = float(np.sqrt(((made - self.mean)[part] ** 2).mean() / unit))
        return found


def _regress(places: NDArray[np.float64], made: NDArray[np.float64], seen: Vector) -> tuple[Vector, Vector]:
    """Return the place [K] that moments [M] speak for, and its errors [K], by regression over sets [N,K], [N,M].

    Every parameter gets its own penalty, that with the least mean square error of sets left out.
    """
    middle, scale = made.mean(0), made.std(0) + 1e-12
    inputs, asked = (made - middle) / scale, (seen - middle) / scale
    within = np.clip(asked, -FARTHEST, FARTHEST)
    left, sizes, right = np.linalg.svd(inputs, full_matrices=False)
    place, errors = np.empty(places.shape[1]), np.empty(places.shape[1])
    for k in range(places.shape[1]):
        mean = places[:, k].mean()
        wanted = places[:, k] - mean
        along = left.T @ wanted
        tried = []
        for penalty in PENALTIES * len(places):
            kept = sizes**2 / (sizes**2 + penalty)
            if kept.sum() > len(places) / 2:
                continue  # it would learn the sets by heart, and no set left out would show it
            own = (left**2) @ kept + 1 / len(places)  # [N], how much each set decides its own estimate
            tried.append((float((((wanted - (left * kept) @ along) / (1 - own)) ** 2).mean()), penalty))
        error, penalty = min(tried)
        weights = right.T @ (sizes / (sizes**2 + penalty) * along)  # [M]
        place[k] = mean + within @ weights
        outside = (asked - within) * weights
        errors[k] = np.sqrt(error + (outside**2).sum())
    return place, errors
