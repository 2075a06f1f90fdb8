"""The loss of dev and test where an input has several right texts: over all of them, as training weighs them."""

from typing import Any

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.quick_compose import compose_quickly
from omegaconf import OmegaConf

from lora_repro.config.catalogue import group_names
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype, Run, load_group
from lora_repro.store.finished_runs import run_of
from lora_repro.tasks import encoding
from lora_repro.tasks.encoding import Encoded, References, encode
from lora_repro.tasks.objectives import text
from lora_repro.tasks.reverse import ReverseConfig
from lora_repro.tasks.targets import Example
from lora_repro.tasks.texts import LossOver, RoomFor, TextConfig
from lora_repro.training import scoring
from lora_repro.training.job import run_job
from lora_repro.training.train import build

CPU = torch.device("cpu")
TEXTS = {"ab": ["b a"], "cd e": ["e", "d c e f g h", "cd"], "fghij": ["j i h g f", "f"], "k": ["k k", "k"]}
"""One to three references an input, of unlike length."""


def several(config: ReverseConfig, data: object, cache: object) -> dict[str, list[Example]]:
    examples = [Example(word, word, right, word) for word, right in TEXTS.items()]
    pairs = [Example(word, word, [each], word) for word, right in TEXTS.items() for each in right]
    return {"train": pairs, "eval": examples, "test": examples}


@pytest.fixture
def prepared(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tuple[torch.nn.Module, dict[str, Encoded]]:
    """A model with strong random weights, and the splits; the parameter gives task.loss_over."""
    monkeypatch.setattr(ReverseConfig, "load", several)
    monkeypatch.setattr(encoding, "_encoded", {})
    sizes = [f"task.{split}_size=null" for split in ("train", "eval", "test")]
    given = ["model=tiny_llama", "task=reverse", "preset@train=tiny_llama", "train.dtype=fp32", "method=full", *sizes]
    resolved = resolve(tiny(*given, "task.max_new_tokens=20", f"task.loss_over={getattr(request, 'param', 'all')}"))
    model = build(resolved, CPU).eval()
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model, encode(resolved.run, resolved.settings)


def losses(model: Any, split: Encoded) -> dict[str, list[tuple[float, int]]]:
    """Returns for each input what transformers finds for each of its texts alone: the loss, and how many tokens."""
    tokenizer = split.objective.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    found: dict[str, list[tuple[float, int]]] = {}
    for i, example in enumerate(split.examples):
        prompt = split.inputs["input_ids"][i, : int(split.lengths[i])].tolist()
        for right in example.target:
            target = [*tokenizer(f" {right}", add_special_tokens=False)["input_ids"], 3]
            labels = torch.tensor([[-100] * len(prompt) + target])
            loss = model(input_ids=torch.tensor([prompt + target]), labels=labels).loss.item()
            found.setdefault(example.id, []).append((loss, len(target)))
    return found


def test_the_loss_is_the_mean_over_the_tokens_of_every_pair(
    prepared: tuple[torch.nn.Module, dict[str, Encoded]],
) -> None:
    model, splits = prepared
    dev = splits["eval"]
    alone = losses(model, dev)
    assert sorted(len(of) for of in alone.values()) == [1, 2, 2, 3]
    pairs = [pair for of in alone.values() for pair in of]
    expected = sum(loss * tokens for loss, tokens in pairs) / sum(tokens for _, tokens in pairs)
    predictions = scoring.predict(model, dev, Dtype.fp32, CPU, with_answers=False)
    found = dev.objective.mean_loss(predictions, dev)
    assert found == pytest.approx(expected, rel=1e-5) and predictions.shape == (4, 1)
    first = [of[0] for of in alone.values()]
    others = [sum(loss * n for loss, n in first) / sum(n for _, n in first), sum(loss for loss, _ in pairs) / 8]
    assert all(abs(found - other) > 0.01 for other in others)  # of the first texts alone, or a mean of means
    sums = [-sum(loss * tokens for loss, tokens in of) for of in alone.values()]
    assert predictions[:, 0].tolist() == pytest.approx(sums, rel=1e-5)
    with torch.inference_mode():
        trained = splits["train"].loss(model, list(range(8)), Dtype.fp32, CPU).item()
    assert found == pytest.approx(trained, rel=1e-5)  # train here has these pairs one by one


@pytest.mark.parametrize("prepared", ["first"], indirect=True)
def test_the_first_alone_is_what_it_was(prepared: tuple[torch.nn.Module, dict[str, Encoded]]) -> None:
    model, splits = prepared
    dev, first = splits["eval"], [of[0] for of in losses(model, splits["eval"]).values()]
    predictions = scoring.predict(model, dev, Dtype.fp32, CPU, with_answers=False)
    expected = sum(loss * n for loss, n in first) / sum(n for _, n in first)
    assert dev.references is None and dev.objective.mean_loss(predictions, dev) == pytest.approx(expected, rel=1e-5)


def test_a_token_weighs_as_much_wherever_it_stands(prepared: tuple[torch.nn.Module, dict[str, Encoded]]) -> None:
    """Sums of 2 over one token and of 90 over nine: 92 / 10, and not the mean of 2 and 10."""
    _, splits = prepared
    targets = torch.full((3, 5), -1)
    targets[0, 0], targets[1, :4], targets[2] = 7, 7, 7
    dev = splits["eval"]._replace(references=References(targets, torch.tensor([1, 2])))
    assert dev.objective.mean_loss(torch.tensor([[-2.0], [-90.0]]), dev) == pytest.approx(9.2)


def test_neither_batches_nor_decoding_change_it_and_a_text_is_written_once_an_input(
    prepared: tuple[torch.nn.Module, dict[str, Encoded]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, splits = prepared
    dev = splits["eval"]
    together = scoring.predict(model, dev, Dtype.fp32, CPU)
    assert together.shape == (4, 1 + 20) and len(dev.objective.answers(together)) == 4
    monkeypatch.setattr(text, "scoring_batches", lambda lengths, on_cpu: [[i] for i in range(len(lengths))])
    with torch.inference_mode():
        alone = torch.cat([dev.outputs(model, [i], Dtype.fp32, CPU) for i in (2, 0, 3, 1)])
    assert torch.allclose(alone[[1, 3, 0, 2], 0], together[:, 0], rtol=1e-5)


def test_train_keeps_its_pairs_and_dev_the_first_text_as_target(
    prepared: tuple[torch.nn.Module, dict[str, Encoded]],
) -> None:
    _, splits = prepared
    assert splits["train"].references is None and splits["train"].targets.shape[0] == 8
    dev = splits["eval"]
    counts = [len(example.target) for example in dev.examples]
    assert dev.references is not None and dev.references.counts.tolist() == counts and dev.targets.shape[0] == 4
    owners = dev.references.owners.tolist()
    assert owners == [i for i, count in enumerate(counts) for _ in range(count)]
    starts, width = [owners.index(i) for i in range(4)], dev.targets.shape[1]
    assert torch.equal(dev.references.targets[starts, :width], dev.targets)
    assert dev.references.targets.shape[1] > width  # the longest is no first one


def test_examples_of_one_text_are_scored_to_the_bit_as_without_it(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("model=tiny_llama", "task=reverse", "preset@train=tiny_llama", "method=full")
    splits = []
    for over in ("first", "all"):
        monkeypatch.setattr(encoding, "_encoded", {})
        resolved = resolve(tiny(*given, f"task.loss_over={over}"))
        splits.append(encode(resolved.run, resolved.settings)["eval"])
    assert all(split.references is None for split in splits)
    assert torch.equal(splits[0].targets, splits[1].targets)


def test_the_size_of_dev_counts_inputs_and_the_record_has_the_loss_of_all_their_texts(tiny: Compose) -> None:
    sizes = ("task.train_size=8", "task.eval_size=5", "task.test_size=3", "train.epochs=1", "train.max_length=256")
    given = ("model=tiny_llama", "task=restaurants", "preset@train=tiny_llama", "task.max_new_tokens=8", *sizes)
    resolved = resolve(tiny(*given))
    dev = encode(resolved.run, resolved.settings)["eval"]
    assert len(dev.examples) == 5 and dev.references is not None
    assert len(dev.references.targets) == sum(len(example.target) for example in dev.examples) > 14
    found = [run_job(tiny(*given, f"task.loss_over={over}")) for over in ("all", "first")]
    assert found[0]["eval/loss"] != found[1]["eval/loss"] and found[0]["test/loss"] != found[1]["test/loss"]
    assert found[0]["eval/bleu"] == found[1]["eval/bleu"]


SEVERAL = {"e2e", "e2e_csv", "webnlg", "dart", "dart_2020", "restaurants"}


def test_tasks_with_several_texts_an_input_are_those_that_say_so() -> None:
    texts = {name: task for name in group_names("task") if isinstance(task := load_group("task", name), TextConfig)}
    assert {name for name, task in texts.items() if task.loss_over is LossOver.all} == SEVERAL
    assert {"samsum", "wikisql", "sql", "mnli_written", "instructions"} <= texts.keys() - SEVERAL


RATE = ("train.learning_rate=1e-3",)


def composed(*given: str) -> Run:
    return resolve(compose_quickly(["model=smollm2", "method=lora", *RATE, *given])).run


def test_runs_of_tasks_with_several_texts_have_new_ids_and_their_earlier_records_are_still_read() -> None:
    """The three ids here were made when the loss was over the first text alone, and room for the longest of any."""
    longest = "task.room_for=longest"
    earlier = "smollm2-samsum-lora-r8-qv-s0-6cec6f5a12"
    assert run_id(composed("task=samsum", longest)) == earlier != run_id(composed("task=samsum"))
    assert run_id(composed("task=sql")) == "smollm2-sql-lora-r8-qv-s0-51cb8cc124"
    earlier = "smollm2-e2e-lora-r8-qv-s0-0c377689fb"
    assert run_id(composed("task=e2e", "task.loss_over=first", longest)) == earlier != run_id(composed("task=e2e"))
    config = OmegaConf.to_container(compose_quickly(["model=smollm2", "method=lora", *RATE, "task=e2e"]))
    assert isinstance(config, dict)
    config = {part: config[part] for part in ("seed", "model", "task", "method", "train")}
    del config["task"]["loss_over"], config["task"]["room_for"]
    read = run_of({"run_id": earlier, "config": config}).task
    assert isinstance(read, TextConfig) and (read.loss_over, read.room_for) == (LossOver.first, RoomFor.longest)
