"""method=few_shot: what a language model reads, what it answers, and what a run of it records.

Expected prompts are written out here, and expected likelihoods are transformers' own, of one string at a time.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.computed_runs import computed
from helpers.fixture_types import Compose
from helpers.local_models import WORDS, bytes_tokenizer, space_mark_tokenizer, write
from helpers.quick_compose import compose_quickly
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.costs.memory import estimate_run
from lora_repro.doctor.base import Subject, Verdict
from lora_repro.doctor.jobs import one_step
from lora_repro.doctor.machine import memory
from lora_repro.errors import InputError
from lora_repro.sweep.grid import Job
from lora_repro.tasks import Example, encoding
from lora_repro.tasks.demonstrations import drawn
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.tasks.generated import GeneratedConfig
from lora_repro.tasks.objectives.label_words import LabelWords
from lora_repro.training import scoring
from lora_repro.training.train import build

CPU = torch.device("cpu")
AS_TEXT = (
    "model=tiny_llama", "preset@train=tiny_llama_few_shot", "task.form=text", "train.dtype=fp32",
    "task.train_size=null", "task.eval_size=null", "task.test_size=null",
)  # fmt: skip


def example(name: str, given: str | tuple[str, str], label: int) -> Example:
    return Example(name, given, label, name)


TRAIN = [
    example("up", "joy up", 1), example("down", "sad bad", 0), example("box", "the box", 1), example("ill", "ill", 0),
    example("hug", "hug", 1), example("woe", "woe is", 0),
]  # fmt: skip
BY_ID = {each.id: each for each in TRAIN}
EVAL = [example("a", "joy is up", 1), example("b", "no fun", 0), example("c", "cry", 0)]
TEST = [example("d", "it was top", 1), example("e", "mad day", 0)]


@pytest.fixture
def few(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """Composes runs on eleven texts, of which six are for training."""
    monkeypatch.setattr(GeneratedConfig, "load", lambda *_: {"train": TRAIN, "eval": EVAL, "test": TEST})
    monkeypatch.setattr(GeneratedConfig, "sizes", lambda _: {"train": 6, "eval": 3, "test": 2})
    monkeypatch.setattr(encoding, "_encoded", {})
    return lambda *overrides: tiny(*AS_TEXT, "method=few_shot", *overrides)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def local(few: Compose, folder: Path, tokenizer: PreTrainedTokenizerFast, *overrides: str) -> Any:
    """Composes a run of a small random Llama with a tokenizer."""
    if not folder.exists():
        settings = {"tie_word_embeddings": True, "initializer_range": 0.3}
        write(folder, "llama", tokenizer, settings, vocab_size=300, max_position_embeddings=512)
    return few("model=local", f"paths.model={folder}", *overrides)


def asked(cfg: Any) -> dict[str, Encoded]:
    resolved = resolve(cfg)
    return encode(resolved.run, resolved.settings)


def shown(split: Encoded) -> list[Example]:
    return [BY_ID[name] for name in split.objective.provenance["demonstrations"]]


def block(examples: list[Example], words: list[str]) -> str:
    return "".join(f"words: {each.input} so{words[each.target]}\n\n" for each in examples)


def text_of(split: Encoded, row: int, tokenizer: PreTrainedTokenizerFast) -> str:
    return str(tokenizer.decode(split.inputs["input_ids"][row, : int(split.lengths[row])]))


def spoken(folder: Path, prompt: str, word: str) -> float:
    """Log p of a word after a prompt, by transformers: of the whole string, alone in its batch."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    whole, front = (torch.tensor(tokenizer(text)["input_ids"]) for text in (prompt + word, prompt))
    assert whole[: len(front)].tolist() == front.tolist() and len(whole) > len(front)
    with torch.inference_mode():
        log_p = model(input_ids=whole[None]).logits[0].log_softmax(-1)
    return sum(log_p[at - 1, whole[at]].item() for at in range(len(front), len(whole)))


def test_demonstrations_stand_in_the_tasks_prompt_and_words_before_each_example(few: Compose, folder: Path) -> None:
    tokenizer = bytes_tokenizer()
    splits = asked(local(few, folder, tokenizer, "method.shots=1", "seed=3"))
    before = block(shown(splits["eval"]), [" bad", " good"])
    assert before.count("\n\n") == 2
    for name, examples in (("eval", EVAL), ("test", TEST)):
        read = [text_of(splits[name], row, tokenizer) for row in range(len(examples))]
        assert sorted(read) == sorted(f"{before}words: {each.input} so" for each in examples)
    assert {text_of(splits["train"], row, tokenizer) for row in range(6)} >= {"words: sad bad so", "words: joy up so"}


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("words", [[" bad", " good"], [" ill", " yes"]], ids=" ".join)
def test_labels_are_as_likely_as_transformers_says_of_the_whole_string(
    words: list[str], bos: bool, few: Compose, folder: Path
) -> None:
    tokenizer = space_mark_tokenizer(("words", "so", *WORDS[:12]), bos=bos)  # some words are spelt in letters
    resolved = resolve(local(few, folder, tokenizer, f"task.label_words={words}", "method.shots=2"))
    splits, model = encode(resolved.run, resolved.settings), build(resolved, CPU).eval()
    before = block(shown(splits["eval"]), words)
    for split in (splits["eval"], splits["test"]):
        prompts = [f"{before}words: {each.input} so" for each in split.examples]
        expected = [[spoken(folder, prompt, word) for word in words] for prompt in prompts]
        assert torch.allclose(scoring.predict(model, split, Dtype.fp32, CPU), torch.tensor(expected), atol=1e-4)


def test_calibrated_answers_are_the_dense_quotients_of_zhao(few: Compose, folder: Path) -> None:
    """Q = W p with W = diag(p_cf)^-1, and p_cf the mean over three inputs made to sum to one."""
    tokenizer, words = space_mark_tokenizer(("words", "so", "N/A", "[MASK]", *WORDS)), [" bad", " good"]
    resolved = resolve(local(few, folder, tokenizer, "method.shots=1", "method.calibrated=true"))
    splits, model = encode(resolved.run, resolved.settings), build(resolved, CPU).eval()
    split, before = splits["eval"], block(shown(splits["eval"]), words)

    def p(text: Any) -> torch.Tensor:
        return torch.tensor([spoken(folder, f"{before}words: {text} so", word) for word in words]).exp()

    p_cf = (p("N/A") + p("[MASK]") + p("")) / 3
    W = torch.diag(1 / (p_cf / p_cf.sum()))
    q = torch.stack([W @ (p(each.input) / p(each.input).sum()) for each in split.examples])
    q /= q.sum(1, keepdim=True)
    found = scoring.predict(model, split, Dtype.fp32, CPU)
    assert torch.allclose(found.softmax(-1), q, atol=1e-5)
    assert [answer.prediction for answer in split.objective.answers(found)] == q.argmax(1).tolist()
    loss = -q.log()[range(3), [each.target for each in split.examples]].mean()
    assert split.objective.mean_loss(found, split) == pytest.approx(loss.item(), abs=1e-5)
    plain = asked(local(few, folder, tokenizer, "method.shots=1"))["eval"]
    raw = scoring.predict(model, plain, Dtype.fp32, CPU)
    assert not torch.allclose(raw.softmax(-1), found.softmax(-1), atol=1e-2)


def test_pairs_are_asked_and_calibrated_as_pairs(few: Compose, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = {"train": [example("p", ("joy", "up"), 1), example("q", ("sad", "fun"), 0)]}
    pairs |= {"eval": [example("r", ("ill", "woe"), 1)], "test": [example("s", ("top", "top"), 0)]}
    monkeypatch.setattr(GeneratedConfig, "load", lambda *_: dict(pairs))
    monkeypatch.setattr(GeneratedConfig, "is_pair", True)
    tokenizer, question = bytes_tokenizer(), ("task.prompt='{first}? {second}:'", "task.label_words=[' n',' y']")
    given = (*question, "task.train_size=2", "task.eval_size=1", "task.test_size=1")
    split = asked(local(few, folder, tokenizer, *given, "method.shots=1", "method.calibrated=true"))["eval"]
    one, other = text_of(split, 0, tokenizer).removesuffix("ill? woe:").strip().split("\n\n")
    assert {one, other} == {"joy? up: y", "sad? fun: n"}
    objective = split.objective
    assert isinstance(objective, LabelWords) and objective.content_free is not None
    assert [text_of(objective.content_free, row, tokenizer).rpartition("\n\n")[2] for row in range(3)] == [
        "N/A? N/A:", "[MASK]? [MASK]:", "? :",
    ]  # fmt: skip


def test_without_shots_it_asks_what_training_starts_from(few: Compose, tiny: Compose) -> None:
    _, ours = computed(few("method.shots=0", "train.max_length=20"))  # the longer ones are cut alike
    _, theirs = computed(tiny(*AS_TEXT, "method=lora", "train.max_length=20"))
    assert ours["metrics_by_epoch"] == theirs["metrics_by_epoch"]


def test_a_run_trains_and_saves_nothing_and_tells_its_demonstrations(few: Compose) -> None:
    record, result = computed(few("method.shots=2", "method.calibrated=true"))
    assert result["params"] | {"total": 0} == {"trainable": 0, "method": 0, "head": 0, "total": 0, "by_module": {}}
    assert not result["flags"]["untrained"] and not result["flags"]["unmoved"]  # which warn of methods that train
    assert record.run_id.startswith("tiny_llama-generated-few_shot-k2-calibrated-s0-")
    assert sorted(BY_ID[name].target for name in result["provenance"]["demonstrations"]) == [0, 0, 1, 1]
    assert result["merge_max_abs_error"] is None and not list(record.folder.rglob("*.safetensors"))
    assert [row["epoch"] for row in result["metrics_by_epoch"]] == [0]


def test_demonstrations_are_balanced_nested_and_drawn_by_the_seed() -> None:
    train = [example(str(i), f"text {i}", i % 3) for i in range(300)]
    found = {(k, seed): drawn(train, [], k, 3, seed) for k in (1, 2, 8) for seed in (0, 1, 2)}
    for (k, _), chosen in found.items():
        assert sorted(each.target for each in chosen) == sorted([0, 1, 2] * k) and len({*chosen}) == 3 * k
    assert {*found[1, 0]} < {*found[2, 0]} < {*found[8, 0]}
    assert {*found[8, 0]} != {*found[8, 1]} != {*found[8, 2]}
    assert [each.target for each in found[8, 0]] != sorted(each.target for each in found[8, 0])
    assert drawn(train, [], 0, 3, 0) == []
    assert {drawn(train, [], 1, 3, seed)[0].target for seed in range(20)} == {0, 1, 2}


def test_no_scored_input_is_among_the_demonstrations() -> None:
    """As lm-evaluation-harness 4145 has it: the prompt then tells the answer. A duplicate in training counts too."""
    train = [example("1", "joy", 1), example("2", "joy", 1), example("3", "sad", 0), example("4", "fun", 1)]
    scored = [example("9", "joy", 1)]
    assert {each.id for seed in range(20) for each in drawn(train, scored, 1, 2, seed)} == {"3", "4"}
    more = [*train, example("5", "fun", 1), example("6", "bad", 0)]
    with pytest.raises(InputError, match=r"has 1 examples of class 1 that differ .* not scored too \(given: 2\)"):
        drawn(more, scored, 2, 2, 0)


def test_what_does_not_fit_is_refused_with_the_tokens_that_are_needed(few: Compose, folder: Path) -> None:
    """As lm-evaluation-harness 1426 has it: cut on the left, a prompt loses demonstrations without a word."""
    tokenizer = bytes_tokenizer()
    before = block(shown(asked(local(few, folder, tokenizer, "method.shots=1"))["eval"]), [" bad", " good"])
    needed = len(before) + len("words: it was top so") + len(" good")
    message = rf"need {needed} tokens with the answer \(given: {needed - 1}\); 1 of 5 prompts are longer, and nothing"
    with pytest.raises(InputError, match=f"{message} is cut.*\nRaise it: train.max_length={needed}, or"):
        asked(local(few, folder, tokenizer, "method.shots=1", f"train.max_length={needed - 1}"))
    fitting = asked(local(few, folder, tokenizer, "method.shots=1", f"train.max_length={needed}"))
    assert int(fitting["test"].lengths.max()) == needed - len(" good")


def test_runs_of_one_process_each_have_their_own_demonstrations(few: Compose) -> None:
    sets = [tuple(shown(asked(few("method.shots=2", f"seed={seed}"))["eval"])) for seed in (0, 1, 2, 0)]
    assert sets[0] == sets[3] and len({*sets}) == 3
    other = asked(few("method.shots=1", "seed=0"))["eval"]
    assert {*shown(other)} < {*sets[0]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.form=label", "method=few_shot: shows solved examples to a language model .* asks otherwise here"),
        ("model=tiny_bert", "is an encoder and writes no text"),
        ("train.epochs=1", r"train.epochs: must be 0, as method=few_shot trains nothing \(given: 1\)"),
        ("method.shots=-1", r"method.shots: must be 0 or more, the demonstrations of each class \(given: -1\)"),
        ("method.shots=4", r"method.shots: the training split has 3 examples of class 0"),
        ("train.init_from=tiny_llama-generated-lora-r8-qv-s0-0efc9e360b", "trains nothing, so it has no place for an"),
    ],
)
def test_what_cannot_be_asked_is_refused(override: str, message: str, few: Compose) -> None:
    with pytest.raises(InputError, match=message):
        asked(few(override))


@pytest.mark.parametrize("given", [["method.shots=2"], ["method.shots=0", "method.calibrated=true"]])
def test_a_text_to_write_takes_no_demonstrations(given: list[str]) -> None:
    with pytest.raises(InputError, match=r"(?s)task=reverse asks otherwise here.*method\.shots=0"):
        resolve(compose_quickly(["model=tiny_llama", "task=reverse", "method=few_shot", *given]))


def test_without_shots_a_model_writes_what_an_untrained_one_writes(tiny: Compose) -> None:
    same = ("model=tiny_llama", "task=reverse", "train.epochs=0", "train.max_length=64", "train.dtype=fp32")
    sizes = ("task.train_size=8", "task.eval_size=8", "task.test_size=8")
    records = [
        computed(tiny(*same, *sizes, *more)) for more in (["method=few_shot", "method.shots=0"], ["method=lora"])
    ]
    (record, ours), (_, theirs) = records
    assert ours["metrics"] == theirs["metrics"] and ours["params"]["method"] == 0
    assert record.run_id.startswith("tiny_llama-reverse-few_shot-k0-s0-")


def test_shots_and_calibration_are_in_the_id_and_a_default_is_not(few: Compose) -> None:
    ids = [run_id(resolve(few(*more)).run) for more in ([], ["method.shots=1"], ["method.calibrated=true"], ["seed=1"])]
    assert len({name[-10:] for name in ids}) == 4
    assert run_id(resolve(few("method.calibrated=false")).run) == ids[0]


def test_doctor_finds_nothing_wrong_with_what_trains_nothing(tiny: Compose) -> None:
    """The demonstrations are of the whole training split, of which a step of other methods takes a few examples."""
    sizes = ("task.train_size=null", "task.eval_size=32", "task.test_size=32")
    resolved = resolve(tiny(*AS_TEXT[:4], *sizes, "method=few_shot", "method.shots=3"))
    subject = Subject([Job([], run_id(resolved.run), resolved, {})], InputError(""), resolved.settings)
    for *_, examine in (one_step, memory):
        assert examine(subject).verdict is Verdict.ok


def test_memory_is_that_of_scoring_without_gradients(few: Compose) -> None:
    run = resolve(few("method.shots=1", "train.batch_size=4096")).run
    found = estimate_run(run, CPU)
    assert found.gradients == found.optimizer == found.checkpoint == 0
    assert 0 < (found.step or 0) < 2**27  # 4 prompts of 512 tokens at a time, and not 4096
