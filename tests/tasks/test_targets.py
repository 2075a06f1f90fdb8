"""What classes, scores and texts are worth, by hand and beside scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from lora_repro.tasks import metrics
from lora_repro.tasks.targets import (
    ACCURACY,
    F1,
    MACRO_F1,
    MATTHEWS,
    PEARSON,
    SPEARMAN,
    Classes,
    Example,
    Scores,
    Targets,
    Texts,
)

SPLITS = ("train", "eval", "test")


def examples(*targets: object) -> list[Example]:
    return [Example(str(i), "", target, "") for i, target in enumerate(targets)]


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipys_with_and_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=50), rng.normal(size=50)
    for a, b in ((x, y), (x.round(), y.round()), (x, x + 0.1 * y)):
        assert metrics.pearson(a, b) == pytest.approx(stats.pearsonr(a, b)[0])
        assert metrics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0])
    assert metrics.mean_squared_error(x, y) == pytest.approx(((x - y) ** 2).sum() / 50)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_constant_predictions_correlate_with_nothing_and_raise_a_flag(noise: float) -> None:
    """Numpy and scipy return nan, which no record can hold; and of differences by rounding, any number."""
    references = [2.0, -1.0, 0.5]
    predictions = (0.3 + noise * np.array([1.0, -1.0, 0.0])).tolist()
    found = Scores().evaluate(examples(*references), predictions)
    assert found["pearson"] == found["spearman"] == 0.0 and found["mse"] > 0
    assert Scores().flags({"eval": predictions, "test": references}) == {"constant": True}
    assert Scores().flags({"eval": references, "test": references}) == {"constant": False}


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_prediction_that_is_no_finite_number_has_no_score(bad: float) -> None:
    """Of infinity the answers would seem constant, and the correlation 0."""
    for metric in (PEARSON, SPEARMAN):
        with pytest.raises(ValueError, match="a prediction is no finite number"):
            Scores(metric).evaluate([Example(str(i), "", float(i), "") for i in range(4)], [bad, 1.0, 2.0, 3.0])


def test_answering_the_mean_has_the_variance_as_its_error() -> None:
    references = [2.0, -1.0, 0.5]
    found = Scores().evaluate(examples(*references), [0.5, 0.5, 0.5])
    assert found["mse"] == pytest.approx(found["variance"]) == pytest.approx(np.var(references))


@pytest.mark.parametrize(
    ("written", "is_right"),
    [("a b", True), (" a  b\n", True), ("c", True), ("a b c", False), ("ab", False), ("A b", False), ("", False)],
)
def test_a_text_is_right_if_it_equals_a_reference_but_for_white_space(written: str, is_right: bool) -> None:
    assert Texts().evaluate(examples(["a b", "c"]), [written]) == {"exact_match": float(is_right)}


def test_one_answer_to_everything_raises_a_flag() -> None:
    assert Classes().flags({"eval": [0, 1], "test": [1, 1]}) == {"one_class": True}
    assert Classes().flags({"eval": [0, 1], "test": [1, 0]}) == {"one_class": False}


def test_classes_are_called_by_their_names_and_cut_inputs_are_told() -> None:
    data = {"train": {"n": 4, "labels": {"0": 4}}, "eval": {"n": 4, "labels": {"0": 1, "1": 3}, "cut": 2}}
    assert Classes().summary(data, ["bad", "good"]) == (
        "4 / 4 examples (train / dev, inputs cut to train.max_length: dev 2), classes bad / good: dev 25.0 / 75.0 %"
    )
    assert Classes().summary(data).endswith("classes 0 / 1: dev 25.0 / 75.0 %")
    assert Texts().flags({"eval": ["a", "b"], "test": ["a", "a"]}) == {"one_text": True}
    assert Texts().flags({"eval": ["a", "b"], "test": ["a", "b"]}) == {"one_text": False}


@pytest.mark.parametrize(
    ("targets", "of", "described", "summary"),
    [
        (Classes(), (1, 0, 1), {"n": 3, "labels": {"0": 1, "1": 2}}, "classes 0 / 1: dev 33.3 / 66.7 %, test 33.3"),
        (Scores(), (1.0, 4.0), {"n": 2, "mean": 2.5, "sd": 1.5}, "deviation): dev 2.50 ± 1.50, test 2.50 ± 1.50"),
        (Texts(), (["ab", "x"], ["c"]), {"n": 2, "characters": 1.5}, "characters to be written: dev 1.5, test 1.5"),
    ],
)
def test_a_split_is_described_and_the_description_is_known_again(
    targets: Targets, of: tuple[object, ...], described: dict[str, object], summary: str
) -> None:
    assert targets.describe(examples(*of)) == described
    assert summary in targets.summary(dict.fromkeys(SPLITS, described))
    assert targets.is_description(described) and not targets.is_description(described | {"n": 0})
    for key in described:
        assert not targets.is_description({other: value for other, value in described.items() if other != key})


def test_classes_stand_in_one_order_also_where_a_split_lacks_one() -> None:
    data = {"train": {"0": 4, "1": 4, "10": 1, "2": 4}, "eval": {"0": 5, "2": 5}, "test": {"0": 2, "1": 8}}
    told = Classes().summary({split: {"n": sum(of.values()), "labels": of} for split, of in data.items()})
    assert "classes 0 / 1 / 2 / 10: dev 50.0 / 0.0 / 50.0 / 0.0 %, test 20.0 / 80.0 / 0.0 / 0.0 %" in told


@pytest.mark.parametrize("targets", [Classes(), Scores(), Texts()])
def test_every_kind_declares_what_it_evaluates(targets: Targets) -> None:
    target = {Classes: 1, Scores: 1.0, Texts: ["a"]}[type(targets)]
    answer = target[0] if isinstance(target, list) else target
    found = targets.evaluate(examples(target, target), [answer, answer])
    assert list(found) == [metric.name for metric in targets.metrics]
    for name, value in found.items():
        metric = targets.metric(name)
        assert metric is not None and metric.low <= value <= metric.high
        assert metric.baseline is None or targets.metric(metric.baseline) is not None
    loss = targets.metric("loss")
    assert loss is not None and (loss.low, loss.high) == (0.0, math.inf) and targets.metric("bleu") is None


def test_a_metric_is_printed_in_its_unit_and_its_best_value_follows_its_direction() -> None:
    accuracy, error = Classes().metrics[0], Scores().metrics[0]
    assert (accuracy.format(0.8512), accuracy.title) == ("85.1", "accuracy in percent")
    assert (error.format(0.8512), error.title) == ("0.851", "mse")
    assert (accuracy.best([0.1, 0.9, 0.9]), error.best([0.9, 0.1, 0.1])) == (1, 1)


def test_f1_and_matthews_by_hand() -> None:
    """Of 4 positives 3 are found, beside 1 false one, in 10 examples."""
    references = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    predictions = [1, 1, 1, 0, 1, 0, 0, 0, 0, 0]
    found = Classes(F1, MACRO_F1, MATTHEWS, ACCURACY).evaluate(examples(*references), predictions)
    assert found["f1"] == pytest.approx(3 / 4)
    assert found["macro_f1"] == pytest.approx((3 / 4 + 5 / 6) / 2)
    assert found["matthews"] == pytest.approx((3 * 5 - 1 * 1) / math.sqrt(4 * 4 * 6 * 6))
    assert found["accuracy"] == 0.8 and found["majority"] == 0.6
    assert [metric.name for metric in Classes(MATTHEWS).metrics] == ["matthews"]


def test_a_constant_answer_has_no_f1_and_no_correlation() -> None:
    found = Classes(F1, MATTHEWS).evaluate(examples(1, 0, 1), [0, 0, 0])
    assert found == {"f1": 0.0, "matthews": 0.0}


def test_f1_of_three_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="macro_f1"):
        Classes(F1).evaluate(examples(0, 1, 2), [0, 1, 2])


def test_macro_f1_counts_the_classes_that_the_references_have() -> None:
    assert Classes(MACRO_F1).evaluate(examples(0, 0, 2), [0, 0, 1])["macro_f1"] == pytest.approx(0.5)
