"""Statistics against scipy, against naive loops, and on simulated data whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from ttctune.bench.statistics import (
    Interval,
    average_draws,
    average_weights,
    difference_draws,
    holm,
    interval,
    mean_and_deviation,
    p_value,
    task_interval,
    win_tie_loss,
)


def answers(generator: np.random.Generator, seeds: int, images: int, share: float = 0.7) -> np.ndarray:
    return generator.random((seeds, images)) < share


def test_mean_and_deviation_are_those_of_numpy_and_one_run_has_no_deviation() -> None:
    assert mean_and_deviation([0.5, 0.7, 0.9]) == pytest.approx((0.7, np.std([0.5, 0.7, 0.9], ddof=1)))
    mean, deviation = mean_and_deviation([0.5])
    assert mean == 0.5 and math.isnan(deviation)


def test_drawing_counts_of_patterns_is_drawing_images() -> None:
    """Mean and deviation of the draws equal those of a loop that draws single images, for all seeds at once."""
    generator = np.random.default_rng(0)
    first, second = answers(generator, 3, 60), answers(generator, 3, 60, 0.6)
    fast = difference_draws(first, second, np.random.default_rng(1), 6000).images
    difference = first.astype(float) - second
    slow = [difference[:, generator.integers(0, 60, 60)].mean() for _ in range(6000)]
    assert fast.mean() == pytest.approx(np.mean(slow), abs=0.004)
    assert fast.std() == pytest.approx(np.std(slow), rel=0.04)
    assert np.quantile(fast, 0.975) == pytest.approx(np.quantile(slow, 0.975), abs=0.01)


def test_with_one_seed_the_interval_is_scipys_bootstrap_over_images() -> None:
    generator = np.random.default_rng(2)
    first, second = answers(generator, 1, 400), answers(generator, 1, 400, 0.6)
    difference = first[0].astype(float) - second[0]
    theirs = stats.bootstrap(
        (difference,), np.mean, n_resamples=4000, method="percentile", random_state=np.random.default_rng(3)
    ).confidence_interval
    ours = interval(difference.mean(), difference_draws(first, second, np.random.default_rng(4)).values)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_a_pair_that_differs_nowhere_has_an_interval_of_zero_width() -> None:
    """Pairing matters: unpaired, the same answers would leave an interval around zero."""
    same = answers(np.random.default_rng(5), 2, 100)
    assert not difference_draws(same, same.copy(), np.random.default_rng(0)).values.any()
    assert difference_draws(same, None, np.random.default_rng(0)).images.std() > 0.01


def test_an_image_is_drawn_under_all_seeds_at_once_that_saw_it_and_no_other() -> None:
    """Mean and deviation equal those of a loop that draws single images of each kind, by the seeds that saw them."""
    generator = np.random.default_rng(7)
    right, seen = answers(generator, 3, 100), np.zeros((3, 100), bool)
    seen[0, :60], seen[1, :60], seen[1, 60:70], seen[2, 60:] = True, True, True, True
    fast, slow = difference_draws(right, None, np.random.default_rng(1), 6000, seen=seen).images, []
    kinds = [np.flatnonzero((seen.T == kind).all(1)) for kind in np.unique(seen.T, axis=0)]
    for _ in range(6000):
        drawn = np.concatenate([generator.choice(kind, len(kind)) for kind in kinds])
        slow.append(np.mean([right[k, drawn][seen[k, drawn]].mean() for k in range(3)]))
    assert fast.mean() == pytest.approx(np.mean(slow), abs=0.004)
    assert fast.std() == pytest.approx(np.std(slow), rel=0.04)


def seeds_alone(*differences: int) -> tuple[np.ndarray, np.ndarray]:
    """Right answers of two methods on 20 images, of which a seed answers every one alike."""
    gains = np.repeat(np.array(differences)[:, None], 20, axis=1)
    return gains > 0, gains < 0


def test_where_seeds_alone_differ_the_interval_is_scipys_t_interval() -> None:
    values = [1, 0, -1, 1]
    drawn = difference_draws(*seeds_alone(*values), np.random.default_rng(0), 100_000)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    ours = interval(np.mean(values), drawn.values)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_an_average_has_the_degrees_of_freedom_of_welch_and_satterthwaite() -> None:
    """As scipy's test of the difference of two means has them."""
    generator = np.random.default_rng(3)
    first, second = [1, 0, -1, 1], [1, 1, 0]
    drawn = [difference_draws(*seeds_alone(*values), generator, 100_000) for values in (first, second)]
    both = interval(1, average_draws(dict(zip("ab", drawn, strict=True)), {"a": 1, "b": 1}).values)
    theirs = stats.ttest_ind(first, [-value for value in second], equal_var=False).confidence_interval(0.95)
    assert both.high - both.low == pytest.approx(theirs.high - theirs.low, rel=0.02)


def test_a_task_of_one_seed_has_the_mean_variance_of_a_run_on_those_of_more() -> None:
    generator = np.random.default_rng(4)
    runs = {"a": [1, 0, -1, 1], "b": [1, 1, 0], "c": [1]}
    drawn = {task: difference_draws(*seeds_alone(*values), generator) for task, values in runs.items()}
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    of_a_run = {task: np.var(values, ddof=1) for task, values in runs.items() if len(values) > 1}
    of_a_run["c"] = (of_a_run["a"] + of_a_run["b"]) / 2
    expected = sum(weights[task] ** 2 * of_a_run[task] / len(values) for task, values in runs.items())
    assert average_draws(drawn, weights).between == pytest.approx(expected)
    assert average_draws({"c": drawn["c"]}, {"c": 1.0}).spread == 0


def test_what_drawn_images_explain_of_the_variance_between_seeds_is_that_of_a_loop() -> None:
    """The mean of what seeds show of it where images were drawn anew, each seed being as good as every other."""
    generator = np.random.default_rng(9)
    right, seen = answers(generator, 3, 100), np.ones((3, 100), bool)
    seen[0, 50:], seen[2, :30] = False, False
    drawn = difference_draws(right, None, generator, seen=seen)
    kinds = [np.flatnonzero((seen.T == kind).all(1)) for kind in np.unique(seen.T, axis=0)]
    own = np.array([right[k, seen[k]].mean() for k in range(3)])
    loop = []
    for _ in range(8000):
        images = np.concatenate([generator.choice(kind, len(kind)) for kind in kinds])
        means = np.array([right[k, images][seen[k, images]].mean() for k in range(3)])
        loop.append((means - own).var(ddof=1) / 3)
    assert drawn.explained == pytest.approx(np.mean(loop), rel=0.05)
    assert drawn.by_images == pytest.approx(drawn.images.var(), rel=0.1)
    assert drawn.between == pytest.approx(own.var(ddof=1) / 3)


@pytest.mark.parametrize(
    ("seeds", "images", "luck", "noise", "folds", "width"),
    [
        ([1] * 4, 200, 0.0, 0.5, 5, 1.1),
        ([3] * 4, 200, 0.05, 0.2, 5, 1.35),
        ([3] * 4, 200, 0.2, 0.2, 5, 1.35),
        ([3] * 4, 100, 0.0, 1.0, 5, 1.45),
        ([3] * 4, 200, 0.0, 0.2, 1, 1.45),
        ([3] * 4, 200, 0.0, 0.2, 3, 1.35),
        ([2], 200, 0.2, 0.2, 5, 6),
        ([3], 200, 0.2, 0.2, 5, 2.1),
        ([5], 200, 0.2, 0.2, 5, 1.5),
        ([3] * 10, 200, 0.1, 0.2, 5, 1.2),
        ([2] * 4 + [1] * 6, 200, 0.1, 0.2, 5, 1.75),
        ([3] * 2 + [1] * 2, 200, 0.2, 0.2, 5, 1.6),
    ],
    ids=str,
)
def test_intervals_cover_the_truth(
    seeds: list[int], images: int, luck: float, noise: float, folds: int, width: float
) -> None:
    """95 % intervals of the difference of two equal methods hold zero in at least 90 % of 200 simulated grids.

    Every image has a difficulty of its own, shared by the methods; a run is luckier or less than another, and an
    answer depends on chance by `noise`. Few seeds that differ much are the hardest case. The intervals are not
    wasteful either: at most `width` times as wide as the means spread. `seeds` are those of each task, of which each
    sees so many of five folds.
    """
    generator, held, widths, means, grids = np.random.default_rng(16), 0, [], [], 200
    for _ in range(grids):
        by_task, mean = {}, 0.0
        for task, runs in enumerate(seeds):
            seen = (np.arange(images) % 5 - np.arange(runs)[:, None]) % 5 < folds
            difficulty = generator.normal(0, 1, images)
            lucky = generator.normal(0, luck, (2, runs, 1))
            first, second = difficulty + lucky + generator.normal(0, noise, (2, runs, images)) > -0.5
            by_task[str(task)] = difference_draws(first, second, generator, 300, seen=seen)
            mean += (first[seen].mean() - second[seen].mean()) / len(seeds)
        drawn = interval(mean, average_draws(by_task, dict.fromkeys(by_task, 1 / len(seeds))).values)
        held += drawn.low <= 0 <= drawn.high
        widths.append(drawn.high - drawn.low)
        means.append(mean)
    assert held / grids >= 0.9
    assert np.median(widths) < width * 2 * 1.96 * np.std(means)


def test_seeds_that_differ_widen_the_interval() -> None:
    """Two runs that answer alike tell less when a third disagrees."""
    steady = np.zeros((3, 200), bool)
    steady[:, :140] = True
    shaky = steady.copy()
    shaky[0, :60] = False
    drawn = (difference_draws(a, None, np.random.default_rng(0)).values for a in (steady, shaky))
    narrow, wide = (np.diff(np.quantile(values, [0.25, 0.75])) for values in drawn)
    assert wide > 2 * narrow


def test_answers_of_other_shapes_are_refused() -> None:
    generator = np.random.default_rng(0)
    for first, second in [((2, 5), (3, 5)), ((2, 5), (2, 4)), ((0, 5), None), ((2, 0), None)]:
        with pytest.raises(ValueError, match="seeds x images"):
            difference_draws(np.ones(first, bool), None if second is None else np.ones(second, bool), generator)
    unseen = np.array([[True, True], [False, False]])
    with pytest.raises(ValueError, match="seeds x images"):
        difference_draws(np.ones((2, 2), bool), None, generator, seen=unseen)


def test_the_task_interval_is_the_one_of_scipys_t_test() -> None:
    values = [0.02, 0.05, -0.01, 0.03]
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    ours = task_interval(values)
    assert (ours.value, ours.low, ours.high) == pytest.approx((np.mean(values), theirs.low, theirs.high))
    alone = task_interval([0.02])
    assert alone.value == 0.02 and math.isnan(alone.low) and alone.sign == 0


def naive_holm(p_values: list[float]) -> list[float]:
    """From the definition: the k-th smallest times what is left, never below an earlier one."""
    adjusted = []
    for p in p_values:
        smaller = [q for q in p_values if q <= p]
        steps = [q * sum(r >= q for r in p_values) for q in smaller]
        adjusted.append(min(1.0, max(steps)))
    return adjusted


def test_holm_is_that_of_its_definition() -> None:
    generator = np.random.default_rng(7)
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    for size in (1, 2, 5, 12):
        p_values = list(generator.random(size) ** 3)
        assert holm(p_values) == pytest.approx(naive_holm(p_values))


def test_a_p_value_is_small_only_where_the_draws_are_on_one_side() -> None:
    assert p_value(np.full(999, 0.1)) == pytest.approx(2 / 1000)
    assert p_value(np.zeros(999)) == 1
    assert p_value(np.linspace(-1, 1, 1001)) == pytest.approx(1, abs=0.01)


def test_a_win_is_an_interval_above_zero() -> None:
    intervals = [Interval(1, 0.5, 2), Interval(1, -0.5, 2), Interval(-1, -2, -0.1), Interval(0, math.nan, math.nan)]
    assert win_tie_loss(intervals) == (1, 2, 1)


def test_the_two_averages_weigh_tasks_or_groups() -> None:
    groups = {"a": "natural", "b": "natural", "c": "natural", "d": "structured"}
    values = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.0}
    means = {
        average: sum(values[task] * weight for task, weight in average_weights(groups, average).items())
        for average in ("tasks", "groups")
    }
    assert means == pytest.approx({"tasks": 0.75, "groups": 0.5})


def test_methods_that_answer_one_class_each_and_change_it_with_the_seed_are_not_told_apart() -> None:
    labels = np.arange(200) % 2
    first = np.stack([labels == 0, labels == 1])
    draws = difference_draws(first, ~first, np.random.default_rng(0))
    assert p_value(draws.values) == 1.0
    assert interval(0.0, draws.values) == Interval(0.0, 0.0, 0.0)
