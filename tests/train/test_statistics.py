import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikebridge.train.statistics import (
    difference,
    fewest_trials,
    most_failures,
    student_quantile,
    student_share,
    worth_of_one,
)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 100, 999])
def test_student_is_that_of_scipy(freedom):
    from scipy import stats  # takes a second to import, and half of the processes run other tests

    for t in (0.0, 0.1, 1.0, 2.5, 12.0):
        assert student_share(t, freedom) == pytest.approx(1 - 2 * stats.t.sf(t, freedom), abs=1e-12)
    for share in (0.0, 0.5, 0.9, 0.95, 0.999):
        assert student_quantile(share, freedom) == pytest.approx(
            stats.t.ppf((1 + share) / 2, freedom), rel=1e-9, abs=1e-9
        )


def test_student_refuses_what_has_no_quantile():
    for share, freedom in ((0.95, 0), (1.0, 3), (-0.1, 3)):
        with pytest.raises(ValueError, match="expected at least 1"):
            student_quantile(share, freedom)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
def test_intervals_are_those_of_the_paired_t_test(pairs):
    from scipy import stats

    ours, theirs = dict(enumerate(a for a, _ in pairs)), dict(enumerate(b for _, b in pairs))
    paired = difference(ours, theirs)
    gains = [a - b for a, b in pairs]
    assert paired["mean"] == pytest.approx(math.fsum(gains) / len(gains), abs=1e-12)
    if paired["std"] < 1e-9:
        return
    interval = stats.ttest_rel(list(ours.values()), list(theirs.values())).confidence_interval(0.95)
    assert (paired["low"], paired["high"]) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)
    assert paired["n"] == len(pairs)


def test_only_common_seeds_count():
    paired = difference({0: 0.5, 1: 0.7, 3: None, 4: 0.1}, {1: 0.6, 0: 0.3, 3: 0.2})
    assert paired["n"] == 2
    assert paired["values"] == pytest.approx([0.2, 0.1])
    one = difference({0: 0.5}, {0: 0.25, 7: 1.0})
    assert (one["mean"], one["std"], one["low"], one["high"], one["n"]) == (0.25, None, None, None, 1)
    assert difference({0: 0.5}, {1: 0.5})["mean"] is None


def test_what_one_recording_of_a_small_split_is_worth():
    assert worth_of_one(6, "test") == "6 test recordings: each is 17 points"
    assert worth_of_one(1, "validation") == "1 validation recording: each is 100 points"
    assert worth_of_one(0, "test") == worth_of_one(100, "test") == ""


@pytest.mark.parametrize(("n", "share"), [(10, 0.05), (71, 0.05), (143, 0.02), (143, 0.005), (460, 0.005), (1000, 0.3)])
def test_failures_that_show_a_probability_are_those_of_the_binomial_distribution(n, share):
    def up_to(k):
        return sum(math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k + 1))

    k = most_failures(n, share, 0.9)
    assert k < 0 or up_to(k) <= 0.1
    assert up_to(k + 1) > 0.1
    assert (k >= 0) == (n >= fewest_trials(share, 0.9))


def test_no_failure_shows_that_none_is_possible():
    assert (most_failures(1000, 0.0, 0.9), fewest_trials(0.0, 0.9)) == (-1, None)
    assert (most_failures(5, 1.0, 0.9), fewest_trials(1.0, 0.9)) == (4, 1)
