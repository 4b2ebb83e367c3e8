"""Metrics against values worked out by hand, and their independence of how rows are cut into batches."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import ConfigError, DataError, ShapeError
from chainrule.train import metrics
from chainrule.train.metrics.choice import as_metrics

# six rows, three classes; answers 0 1 2 1 0 2, truth 0 1 1 1 2 2
LOGITS = np.array([[3, 1, 0], [0, 2, 1], [0, 1, 2], [1, 5, 2], [2, 0, 1], [0, 0, 9]], np.float32)
TRUTH = np.array([0, 1, 1, 1, 2, 2])
# one score a row; answers 1 1 0 0 1, truth 1 0 0 1 1
SCORES = np.array([2.0, 0.5, -1.0, -0.25, 3.0], np.float32)
BINARY = np.array([1, 0, 0, 1, 1])


def test_accuracy():
    assert metrics.Accuracy()(LOGITS, TRUTH) == 4 / 6
    assert metrics.Accuracy()(LOGITS, TRUTH[:, None]) == 4 / 6
    assert metrics.Accuracy()(LOGITS, np.eye(3)[TRUTH]) == 4 / 6  # one-hot
    assert metrics.Accuracy()(SCORES, BINARY) == 3 / 5
    assert metrics.Accuracy()(SCORES[:, None], BINARY) == 3 / 5
    assert metrics.Accuracy()(SCORES[:, None], BINARY[:, None].astype(np.float32)) == 3 / 5


def test_one_score_a_row_is_a_logit_unless_a_threshold_is_given():
    probabilities = 1 / (1 + np.exp(-SCORES))
    assert metrics.Accuracy()(probabilities, BINARY) == 3 / 5  # all above 0: answers 1 1 1 1 1
    assert metrics.Accuracy(threshold=0.5)(probabilities, np.array([1, 1, 0, 0, 1])) == 1.0
    assert metrics.Accuracy(threshold=0.5)([[0.9, 0.2], [0.4, 0.6]], [[1, 1], [0, 1]]) == 3 / 4  # multi-label


def test_accuracy_of_sequences():
    scores = np.zeros((2, 3, 4))  # (rows, classes, positions): the classes are on axis 1, as in cross_entropy
    truth = np.array([[0, 1, 2, 1], [2, 2, 0, 0]])
    for row in range(2):
        for position in range(4):
            scores[row, truth[row, position], position] = 1
    scores[0, :, 0] = [0, 1, 0]
    assert metrics.Accuracy()(scores, truth) == 7 / 8


def test_ignored_targets_do_not_count():
    truth = np.array([0, 1, -100, 1, -100, 2])
    assert metrics.Accuracy()(LOGITS, truth) == 1.0
    assert metrics.TopK(1)(LOGITS, truth) == 1.0
    assert metrics.ConfusionMatrix()(LOGITS, truth).tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 1]]
    assert metrics.Accuracy(ignore_index=9)(SCORES, [1, 9, 0, 9, 9]) == 1.0
    assert math.isnan(metrics.Accuracy()(LOGITS, np.full(6, -100)))


def test_top_k():
    assert metrics.TopK(1)(LOGITS, TRUTH) == 4 / 6
    assert metrics.TopK(2)(LOGITS, TRUTH) == 1.0  # row 2: second best is right; row 4: 2 is second
    assert metrics.TopK(3)(LOGITS, TRUTH) == 1.0
    assert metrics.TopK(5)(LOGITS, TRUTH) == 1.0


def test_top_k_of_equal_scores_takes_the_first():
    level = np.zeros((3, 3))
    assert metrics.TopK(1)(level, [0, 1, 2]) == 1 / 3
    assert metrics.TopK(2)(level, [0, 1, 2]) == 2 / 3
    assert metrics.TopK(1)(level, [0, 1, 2]) == metrics.Accuracy()(level, [0, 1, 2])


def test_scores_that_are_nan_are_never_right():
    broken = np.array([[np.nan, 1.0, 2.0], [np.nan, 5.0, 1.0]])
    assert metrics.TopK(3)(broken, [0, 1]) == 0.5
    assert metrics.TopK(1)(broken, [0, 1]) == 0.0


def test_the_confusion_matrix_has_the_truth_in_rows():
    assert metrics.ConfusionMatrix()(LOGITS, TRUTH).tolist() == [[1, 0, 0], [0, 2, 1], [1, 0, 1]]
    assert metrics.ConfusionMatrix()(SCORES, BINARY).tolist() == [[1, 1], [1, 2]]


def test_precision_recall_f1_of_two_classes():
    # answers 1: rows 0 1 4, of which 0 and 4 are right; truth 1: rows 0 3 4
    assert metrics.Precision()(SCORES, BINARY) == 2 / 3
    assert metrics.Recall()(SCORES, BINARY) == 2 / 3
    assert metrics.F1()(SCORES, BINARY) == 2 / 3
    two = np.stack([-SCORES, SCORES], axis=1)
    assert metrics.Precision()(two, BINARY) == 2 / 3
    # class 0: answers rows 2 3, right 2; truth rows 1 2
    assert metrics.Precision(average="macro")(SCORES, BINARY) == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-15)
    assert metrics.Precision(average=None)(SCORES, BINARY).tolist() == [1 / 2, 2 / 3]


def test_precision_recall_f1_of_three_classes():
    # columns of the matrix: answers 2 2 2, right 1 2 1; rows: truth 1 3 2
    precision, recall = [1 / 2, 1, 1 / 2], [1, 2 / 3, 1 / 2]
    assert metrics.Precision(average=None)(LOGITS, TRUTH).tolist() == precision
    assert metrics.Recall(average=None)(LOGITS, TRUTH).tolist() == recall
    assert metrics.Precision()(LOGITS, TRUTH) == pytest.approx(sum(precision) / 3, abs=1e-15)
    assert metrics.Recall()(LOGITS, TRUTH) == pytest.approx(sum(recall) / 3, abs=1e-15)
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True)]
    assert metrics.F1()(LOGITS, TRUTH) == pytest.approx(sum(f1) / 3, abs=1e-15)
    assert (
        metrics.F1(average="micro")(LOGITS, TRUTH) == 4 / 6
    )  # with one answer a row, all micro averages are the accuracy


def test_shares_of_nothing_are_0_and_absent_classes_do_not_count():
    never = np.array([-1.0, -2.0])
    assert metrics.Precision()(never, [1, 0]) == 0.0
    assert metrics.Recall()(never, [0, 0]) == 0.0
    assert metrics.F1()(never, [0, 0]) == 0.0
    wide = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    assert metrics.F1()(wide, [0, 1]) == 1.0  # classes 2 and 3 neither occur nor are answered
    with pytest.raises(ConfigError, match="macro"):
        metrics.F1(average="binary")(LOGITS, TRUTH)
    with pytest.raises(ConfigError, match="average"):
        metrics.F1(average="weighted")


def test_auc_counts_pairs():
    # positives 2.0 -0.25 3.0, negatives 0.5 -1.0: of six pairs only (-0.25, 0.5) is lost
    assert metrics.AUC()(SCORES, BINARY) == 5 / 6
    assert metrics.AUC()(-SCORES, BINARY) == 1 / 6
    assert metrics.AUC()(np.stack([np.ones(5), SCORES + 1], axis=1), BINARY) == 5 / 6
    assert metrics.AUC()([1.0, 1.0, 1.0], [0, 1, 1]) == 0.5
    assert metrics.AUC()([1.0, 2.0, 2.0, 3.0], [0, 1, 0, 1]) == 3.5 / 4
    assert math.isnan(metrics.AUC()([1.0, 2.0], [1, 1]))
    assert math.isnan(metrics.AUC()([1.0, math.nan], [0, 1]))
    with pytest.raises(ConfigError, match="two classes"):
        metrics.AUC()(LOGITS, TRUTH)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_won(rows):
    scores, truth = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows], int)
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth == 1] for b in scores[truth == 0]]
    value = metrics.AUC()(scores, truth)
    assert math.isnan(value) if not pairs else value == pytest.approx(sum(pairs) / len(pairs), abs=1e-14)


def test_perplexity():
    assert metrics.Perplexity()(np.zeros((4, 7)), [0, 1, 2, 3]) == pytest.approx(7, abs=1e-12)
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]))
    assert metrics.Perplexity()(logits, [1, 0]) == pytest.approx(math.sqrt(4 * 8), abs=1e-12)
    assert metrics.Perplexity()([[1000.0, 0.0]], [1]) == math.inf
    assert metrics.Perplexity()([[1000.0, 0.0]], [0]) == 1.0


def test_regression():
    prediction, target = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 5.0, 5.0])  # errors 0 1 -2 -1
    assert metrics.MSE()(prediction, target) == 6 / 4
    assert metrics.RMSE()(prediction, target) == math.sqrt(6 / 4)
    assert metrics.MAE()(prediction, target) == 1.0
    assert metrics.R2()(prediction, target) == 1 - 6 / 16  # mean 3, deviations -2 -2 2 2
    assert metrics.R2()(prediction[:, None], target) == 1 - 6 / 16
    assert metrics.R2()(target, target) == 1.0
    both = np.stack([prediction, target], axis=1), np.stack([target, target], axis=1)
    assert metrics.R2()(*both) == (1 - 6 / 16 + 1) / 2
    assert metrics.MSE()(*both) == 6 / 8


def test_r2_of_equal_targets_is_1_or_0():
    assert metrics.R2()([2.0, 2.0], [2.0, 2.0]) == 1.0
    assert metrics.R2()([2.0, 2.5], [2.0, 2.0]) == 0.0
    assert math.isnan(metrics.R2()([math.nan, 2.0], [2.0, 2.0]))


def test_r2_does_not_lose_its_digits_to_a_large_mean():
    rng = np.random.default_rng(0)
    target = 1e8 + rng.normal(size=1000)
    prediction = target + 0.1 * rng.normal(size=1000)
    expected = 1 - ((prediction - target) ** 2).sum() / ((target - target.mean()) ** 2).sum()
    assert metrics.R2()(prediction, target) == pytest.approx(expected, abs=1e-9)


def test_functions_are_averaged_over_rows():
    rows = metrics.Mean(lambda prediction, target: abs(prediction - target), name="distance")
    assert rows([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]) == 1.0
    worst = metrics.Mean(lambda prediction, target: abs(prediction - target).max(), name="worst", mode="min")
    worst.update(np.array([1.0, 2.0, 3.0]), np.ones(3))
    worst.update(np.array([9.0]), np.ones(1))
    assert worst.compute() == (3 * 2 + 8) / 4
    with pytest.raises(ShapeError, match="one a row"):
        metrics.Mean(lambda prediction, target: np.zeros(2), name="odd")([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])


EVERY = [
    metrics.Accuracy(), metrics.TopK(2), metrics.ConfusionMatrix(), metrics.Precision(), metrics.Recall(), metrics.F1(),
    metrics.Perplexity(),
]  # fmt: skip


@pytest.mark.parametrize("metric", EVERY, ids=lambda m: m.name)
@pytest.mark.parametrize("sizes", [[1] * 97, [97], [32, 32, 32, 1], [96, 1], [5, 90, 2]])
def test_metrics_of_classes_do_not_depend_on_batches(metric, sizes):
    rng = np.random.default_rng(0)
    logits, truth = rng.normal(size=(97, 5)).astype(np.float32), rng.integers(0, 5, 97)
    assert_streamed_equals_whole(metric, logits, truth, sizes)
    assert_streamed_equals_whole(metric, np.asfortranarray(logits), truth, sizes)


@pytest.mark.parametrize("metric", [metrics.MSE(), metrics.RMSE(), metrics.MAE(), metrics.R2()], ids=lambda m: m.name)
@pytest.mark.parametrize("sizes", [[1] * 97, [97], [32, 32, 32, 1], [96, 1], [5, 90, 2]])
@pytest.mark.parametrize("outputs", [(), (1,), (3,)])
def test_metrics_of_numbers_do_not_depend_on_batches(metric, sizes, outputs):
    rng = np.random.default_rng(0)
    prediction, target = (rng.normal(size=(97, *outputs)).astype(np.float32) for _ in range(2))
    assert_streamed_equals_whole(metric, prediction, target, sizes)


@pytest.mark.parametrize("sizes", [[1] * 97, [32, 32, 32, 1]])
def test_auc_does_not_depend_on_batches(sizes):
    rng = np.random.default_rng(0)
    assert_streamed_equals_whole(metrics.AUC(), rng.normal(size=97).round(1), rng.integers(0, 2, 97), sizes)


def assert_streamed_equals_whole(metric, prediction, target, sizes):
    """Equal to the last bit; and the sums can be put away and taken back in between."""
    streamed, begin = metric.fresh(), 0
    for size in sizes:
        streamed.update(prediction[begin : begin + size], target[begin : begin + size])
        begin += size
        kept = {name: np.array(value) for name, value in streamed.sums.items()}
        streamed = metric.fresh()
        streamed.sums = kept
    assert begin == len(target)
    assert np.array_equal(streamed.compute(), metric(prediction, target))


def test_calling_a_metric_leaves_what_it_has_added_up():
    metric = metrics.Accuracy()
    metric.update(np.array([[1.0, 0.0]]), np.array([0]))
    assert metric([[1.0, 0.0]], [1]) == 0.0
    assert metric.compute() == 1.0
    metric.reset()
    assert math.isnan(metric.compute())


def test_halves_and_tensors_are_taken():
    assert metrics.Accuracy()(cr.tensor(LOGITS, dtype=cr.bfloat16), cr.tensor(TRUTH)) == 4 / 6
    assert metrics.MSE()(cr.tensor([1.0, 2.0], dtype=cr.float16), cr.tensor([1.0, 4.0])) == 2.0


@pytest.mark.parametrize(
    ("metric", "prediction", "target", "error", "words"),
    [
        (metrics.Accuracy(), LOGITS, TRUTH + 1, DataError, "target 3 is none of the 3 classes, 0 to 2"),
        (metrics.Accuracy(), LOGITS, TRUTH[:5], ShapeError, r"\(6, 3\) and targets of shape \(5,\)"),
        (metrics.Accuracy(), LOGITS, TRUTH + 0.5, DataError, "0.5"),
        (metrics.Accuracy(), SCORES, BINARY * 2, DataError, "targets are 0 and 1; got .*2"),
        (metrics.Accuracy(), (LOGITS, LOGITS), TRUTH, DataError, "returned a tuple"),
        (metrics.Perplexity(), SCORES, BINARY, ShapeError, "perplexity"),
        (metrics.AUC(), SCORES, BINARY + 1, DataError, "0 and 1"),
        (metrics.MSE(), LOGITS, TRUTH, ShapeError, "expected the same"),
        (metrics.R2(), np.zeros((3, 3)), np.zeros((9,)), ShapeError, "expected the same"),
    ],
)
def test_what_does_not_fit_is_refused(metric, prediction, target, error, words):
    with pytest.raises(error, match=words):
        metric(prediction, target)


def test_metrics_by_name():
    names = ["accuracy", "auc", "f1", "mae", "mse", "perplexity", "precision", "r2", "recall", "rmse", "top5"]
    assert [m.name for m in as_metrics(names)] == names
    assert [m.name for m in as_metrics("accuracy")] == ["accuracy"]
    assert as_metrics(()) == []

    def far(prediction, target):
        return abs(prediction - target) > 1

    assert as_metrics([far])[0].name == "far"
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        as_metrics(["acuracy"])
    with pytest.raises(ConfigError, match="Two columns"):
        as_metrics(["accuracy", metrics.Accuracy()])
    with pytest.raises(ConfigError, match="no metric"):
        as_metrics([metrics.Accuracy])
    with pytest.raises(ConfigError, match="at least 1"):
        metrics.TopK(0)


def test_given_metrics_are_not_touched():
    mine = metrics.Accuracy()
    mine.update(np.array([[1.0, 0.0]]), np.array([0]))
    (used,) = as_metrics([mine])
    assert math.isnan(used.compute())
    used.update(np.array([[1.0, 0.0]]), np.array([1]))
    assert mine.compute() == 1.0
