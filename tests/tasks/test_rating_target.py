"""task.target=rating: the ratings themselves are predicted, on the examples of the classes."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.computed_runs import record_of
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype, load_group
from lora_repro.errors import InputError
from lora_repro.models.inputs import default_cache
from lora_repro.models.load import load_model
from lora_repro.tasks import Example, Splits, encoding, subset
from lora_repro.tasks.encoding import encode
from lora_repro.tasks.ratings import ARCHIVE, RatingsConfig, RatingTarget
from lora_repro.training import scoring
from lora_repro.training.job import run_job
from lora_repro.training.train import build

CPU = torch.device("cpu")
RATING = ("task=movies", "task.target=rating")


def rated(config: RatingsConfig, data: object, cache: object) -> Splits:
    """Texts whose rating is how many of their words are good; as whole numbers, which a file may hold as such."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["joy", "sad"], 6)) for _ in range(144)]
    ratings = [text.count("joy") - 3 for text in texts]
    made = [
        Example(str(i), text, rating if config.target is RatingTarget.rating else int(rating > 0), str(i))
        for i, (text, rating) in enumerate(zip(texts, ratings, strict=True))
    ]
    return {"train": made[:80], "eval": made[80:112], "test": made[112:]}


@pytest.fixture
def rating(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> Compose:
    monkeypatch.setattr(RatingsConfig, "load", rated)
    monkeypatch.setattr(encoding, "_encoded", {})
    return lambda *overrides: tiny(*RATING, "task.train_size=null", *overrides)


def test_the_ratings_are_those_of_the_examples_that_are_classified() -> None:
    cache = filled_cache()
    classes, ratings = load_group("task", "movies"), load_group("task", "movies")
    ratings.target = RatingTarget.rating
    for size in (None, 100):
        classes.train_size = ratings.train_size = size
        ours, theirs = (subset(task.load(None, cache), task) for task in (ratings, classes))
        for split in ours:
            assert [e.id for e in ours[split]] == [e.id for e in theirs[split]]
            assert [int(e.target > 0) for e in ours[split]] == [e.target for e in theirs[split]]
            assert all(isinstance(e.target, float) and 0.5 < abs(e.target) <= 4 for e in ours[split])


def filled_cache() -> str:
    if not ARCHIVE.cached(default_cache()).is_file():
        pytest.skip("no ratings in the cache: python -m lora_repro.fetch movies")
    return default_cache()


def test_the_default_target_stays_out_of_the_id(tiny: Compose) -> None:
    ids = [run_id(resolve(tiny("task=movies", *more)).run) for more in ((), ("task.target=label",), RATING)]
    assert ids[0] == ids[1] != ids[2]


def test_a_rating_is_not_asked_in_words(tiny: Compose) -> None:
    with pytest.raises(InputError, match=r"task\.target: a rating is read from a head"):
        resolve(tiny(*RATING, "task.form=text", "model=tiny_llama"))


@pytest.mark.parametrize("n", [1, 8])
def test_the_loss_is_the_mean_over_examples_of_the_squared_error(rating: Compose, n: int) -> None:
    """And not over all pairs of an output and a target, as of shapes (n, 1) and (n,); one example keeps its axis."""
    resolved = resolve(rating("train.dtype=fp32"))
    model, split = build(resolved, CPU).eval(), encode(resolved.run, resolved.settings)["eval"]
    torch.nn.init.normal_(model.classifier.weight, std=100)  # pyright: ignore
    indices = list(range(n))
    with torch.inference_mode():
        outputs = split.outputs(model, indices, Dtype.fp32, CPU)
        loss = split.loss(model, indices, Dtype.fp32, CPU).item()
    targets = [split.examples[i].target for i in indices]
    assert outputs.shape == (n, 1) and split.targets.dtype is torch.float32
    assert n == 1 or outputs[:, 0].std() > 0.1
    expected = np.mean([(a - b) ** 2 for a, b in zip(outputs[:, 0].tolist(), targets, strict=True)])
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_rating_is_learned_and_its_record_says_how_well(rating: Compose) -> None:
    cfg = rating("method=full", "train.epochs=8", "train.dtype=fp32")
    metrics = run_job(cfg)
    result = record_of(cfg).read().result
    assert result is not None
    assert list(metrics) == [
        f"{split}/{name}" for split in ("eval", "test") for name in ("mse", "pearson", "spearman", "variance", "loss")
    ]
    assert metrics["test/mse"] < 0.5 * metrics["test/variance"] and metrics["test/pearson"] > 0.8
    assert metrics["test/loss"] == pytest.approx(metrics["test/mse"], rel=1e-5)
    assert result["data"]["eval"].keys() == {"n", "mean", "sd"} and result["flags"]["constant"] is False
    assert "one_class" not in result["flags"] and result["params"]["head"] == 32 * 32 + 32 + 32 + 1


def test_a_model_that_answers_alike_to_everything_is_flagged_and_has_no_nan(rating: Compose) -> None:
    cfg = rating("method=head_only", "train.epochs=0")
    encoded = encode(resolve(cfg).run, resolve(cfg).settings)
    same = torch.full((32, 1), 0.25)
    found = scoring.metrics(resolve(cfg).run.task, encoded["eval"], same, "eval")
    assert found["eval/pearson"] == found["eval/spearman"] == 0.0 and np.isfinite(list(found.values())).all()
    flags = scoring.flags(resolve(cfg).run.task, encoded, {"eval/0": same, "test/0": torch.rand(32, 1)}, 0)
    assert flags == {"constant": True}


def test_a_trained_head_with_one_output_is_taken_over_and_one_with_classes_is_not(
    rating: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heads = {}
    for width in (1, 2):
        folder = write(tmp_path / str(width), "bert", words_tokenizer(), num_labels=width)
        cfg = rating("model=local", f"paths.model={folder}", "preset@train=tiny_bert", "train.dtype=fp32")
        caplog.clear()
        with caplog.at_level(logging.WARNING, "lora_repro"):
            model = load_model(resolve(cfg).run, str(folder), "", CPU)
        heads[width] = (model.classifier.weight.std().item(), caplog.text)  # pyright: ignore
    assert "labels" not in heads[1][1] and "a new one is drawn" in heads[2][1]
