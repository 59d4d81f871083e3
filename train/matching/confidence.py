"""How sure an answer is: from simulated answers, of which it is known whether they are right.

Axes: n simulated answers, m answers that are asked about, S signs of each.

The confidence rises with how much farther the second image is than the first, and how near the first is. How many
recordings show none of the images is estimated, and so many of the simulated ones count as such.

Source: Benjamini, Hochberg 1995, "Controlling the false discovery rate" (which recordings clearly show an image; with
the share of those that show none, as in Storey 2002, "A direct approach to false discovery rates"); Saerens, Latinne,
Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori probabilities" (that share); Papadopoulos et
al. 2002, "Inductive confidence machines" (conformal sets: the rank of the distance that covers); Barlow et al. 1972
(isotonic regression).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

ABSENT, KNOWN_BEFORE, LEAST_ABSENT = 0.2, 5, 0.01
"""Share of recordings of no image that is expected before any is seen; how many recordings that counts as; the least
that is believed."""
FALSE = 0.05
"""Share of recordings of no image among those that clearly show one, as expected."""
COVERED = 0.95
"""Share of recordings without an answer whose candidates hold the right image."""
STEPS = 50
"""Of the logistic regression, and of the estimate of the share."""


def absent_share(signs: NDArray[np.float64], is_absent: NDArray[np.bool_], found: NDArray[np.float64]) -> float:
    """Return the share of recordings whose image is not there.

    Args:
        signs: of simulated recordings, [n,S].
        is_absent: whether their own image was left out, [n]; of as many as it was not.
        found: signs of the recordings [m,S].
    """
    even = _logistic(signs, is_absent, np.ones(len(signs)))
    odds = np.exp(np.clip(found @ even, -30, 30))
    share = ABSENT
    for _ in range(STEPS):
        absent = share * odds / (share * odds + 1 - share)
        share = (float(absent.sum()) + ABSENT * KNOWN_BEFORE) / (len(odds) + KNOWN_BEFORE)
    return max(share, LEAST_ABSENT)


def clear_from(found: NDArray[np.float64], there: NDArray[np.float64], absent: NDArray[np.float64]) -> float:
    """Return how many times as far the second image is, at least, of recordings that clearly show the first.

    So many are above it that `FALSE` of them show none of the images, as expected; infinity where that cannot be.

    Args:
        found: how many times as far it is of recordings, [m].
        there: of simulated recordings, [n].
        absent: of the same, without their own image.
    """

    def signs(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([np.log(ratio), np.ones(len(ratio))], 1)

    is_absent = np.repeat([False, True], len(absent))
    share = absent_share(signs(np.concatenate([there, absent])), is_absent, signs(found))
    descending = np.sort(found)[::-1]
    as_clear = len(absent) - np.searchsorted(np.sort(absent), descending)
    chance = (1 + as_clear) / (1 + len(absent))
    few = np.flatnonzero(share * chance <= FALSE * np.arange(1, len(found) + 1) / len(found))
    return float(descending[few[-1]]) if len(few) else math.inf


def confidence(
    signs: NDArray[np.float64], right: NDArray[np.bool_], counts: NDArray[np.float64], *asked: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Return the share of right answers at the signs [m,S] that are asked, as simulated recordings [n] have it."""
    weights = _logistic(signs, right, counts)
    return tuple(_rising(signs @ weights, right, counts, each @ weights) for each in asked)


def covering(farther: NDArray[np.float32]) -> float:
    """Return how many times as far as the nearest the right image is for `COVERED` of recordings [n], and one more.

    With fewer than 19, that of all of them: a further recording is covered less often. 1 without any.
    """
    rank = min(math.ceil((len(farther) + 1) * COVERED), len(farther))
    return max(1.0, float(np.sort(farther)[rank - 1])) if rank else 1.0


def _logistic(signs: NDArray[np.float64], right: NDArray[np.bool_], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights [S] of the logistic regression of right answers [n] on signs [n,S], each counted so often.

    A weak pull to 0 keeps them finite where all answers can be told.
    """
    weights, pull = np.zeros(signs.shape[1]), 1e-2 * np.eye(signs.shape[1])
    for _ in range(STEPS):
        share = 1 / (1 + np.exp(-np.clip(signs @ weights, -30, 30)))
        slope = signs.T @ (counts * (share - right)) + pull @ weights
        step = np.linalg.solve(signs.T @ (signs * (counts * share * (1 - share))[:, None]) + pull, slope)
        weights = weights - np.clip(step, -5, 5)
    return weights


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
