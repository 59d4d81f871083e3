"""Mean, spread and paired differences over seeds, with confidence intervals; plain Python, no scipy.

Two methods trained with the same seeds share recordings, order and initial weights, so their figures are compared seed
by seed: with differences d_1 ... d_n, mean m and standard deviation s (n - 1), the interval is

    m +- t * s / sqrt(n),    t = the Student quantile of (1 + confidence) / 2 with n - 1 degrees of freedom.

It covers the seeds (labelled recordings, weights, order), not the choice of the data set.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TypedDict

CONFIDENCE = 0.95
"""Of every interval in a table."""
FEW = 30
"""Fewer held-out recordings than these bear no interval: one of them is worth more than 3 points."""


def worth_of_one(count: int, split: str) -> str:
    """Return what one recording of a small split is worth: `6 test recordings: each is 17 points`; empty for others."""
    if not 0 < count < 100:
        return ""
    points = 100 / count
    return f"{count} {split} recording{'s' * (count > 1)}: each is {points:.{0 if points >= 10 else 1}f} points"


def mean_and_std(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Return mean and standard deviation with n - 1; the latter is None for one value, both without values."""
    known = [value for value in values if value is not None]
    if not known:
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def student_share(t: float, freedom: int) -> float:
    """Return the probability that |T| <= t >= 0 for Student's T with a whole number of degrees of freedom, at least 1.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4: finite sums over powers of the
    cosine of atan(t / sqrt(freedom)).
    """
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    term = total = math.cos(angle) if freedom % 2 else 1.0
    for k in range(2 + freedom % 2, freedom - 1, 2):
        term *= square * (k - 1) / k
        total += term
    if freedom % 2 == 0:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))


def student_quantile(share: float, freedom: int) -> float:
    """Return the t with P(|T| <= t) = share, 0 <= share < 1, by bisection of the angle; to about 12 digits.

    Raises:
        ValueError: no degree of freedom, or a share out of range.
    """
    if freedom < 1 or not 0 <= share < 1:
        raise ValueError(
            f"{freedom} degrees of freedom and a share of {share}: expected at least 1, and 0 <= share < 1"
        )
    low, high = 0.0, math.pi / 2
    for _ in range(64):
        middle = (low + high) / 2
        if student_share(math.sqrt(freedom) * math.tan(middle), freedom) < share:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def most_failures(n: int, share: float, confidence: float) -> int:
    """Return the most failures among n trials that show a probability of failure of at most `share`, -1 where none do.

    As many or fewer would happen with a probability of 1 - confidence at most, were that of a failure `share`.

    Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26: `share` is at or above the upper limit of that many failures.
    """
    if share in (0.0, 1.0):
        return int(share) * n - 1
    below, rest, k = 0.0, 1 - confidence, -1
    while k + 1 < n:
        ways = math.lgamma(n + 1) - math.lgamma(k + 2) - math.lgamma(n - k)
        below += math.exp(ways + (k + 1) * math.log(share) + (n - k - 1) * math.log1p(-share))
        if below > rest:
            break
        k += 1
    return k


def fewest_trials(share: float, confidence: float) -> int | None:
    """Return how many trials without a failure show a probability of failure of at most `share`; None for share 0."""
    if not share:
        return None
    return 1 if share == 1 else math.ceil(math.log(1 - confidence) / math.log1p(-share))


class Difference(TypedDict):
    """Figures of one method minus those of another, seed by seed, as tables in JSON hold them."""

    mean: float | None
    """None without a common seed."""
    std: float | None
    """Of the differences, n - 1; None for fewer than two."""
    low: float | None
    """Lower end of the confidence interval; None for fewer than two."""
    high: float | None
    """Upper end."""
    n: int
    """Common seeds."""
    values: list[float]
    """By seed, ascending."""
    confidence: float


def difference(figures: Mapping[int, float | None], minus: Mapping[int, float | None]) -> Difference:
    """Compute the paired difference over the seeds that both have a figure for."""
    seeds = sorted(seed for seed in figures if figures[seed] is not None and minus.get(seed) is not None)
    values = [float(figures[s]) - float(minus[s]) for s in seeds]  # type: ignore[arg-type]
    mean, std = mean_and_std(values)
    low = high = None
    if mean is not None and std is not None:
        half = student_quantile(CONFIDENCE, len(values) - 1) * std / math.sqrt(len(values))
        low, high = mean - half, mean + half
    return {
        "mean": mean,
        "std": std,
        "low": low,
        "high": high,
        "n": len(values),
        "values": values,
        "confidence": CONFIDENCE,
    }


def wilson(share: float, n: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Return the interval of a proportion for n > 0 independent samples; z = 1.96 gives 95 %.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22.
    """
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
