"""form=text: what a language model is asked, held against transformers' own logits and loss."""

import pytest
import torch
from helpers.fixture_types import Compose
from omegaconf import DictConfig

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.errors import InputError
from lora_repro.models.tokenizer import load_tokenizer
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.tasks.objectives import language
from lora_repro.tasks.objectives.label_words import LabelWords
from lora_repro.training.train import build

CPU = torch.device("cpu")
TEXT = ("model=tiny_llama", "task.form=text", "preset@train=tiny_llama", "train.dtype=fp32")
SPELT = "task.label_words=[' n',' yes']"
"""One word of one token and one of three, to a vocabulary of letters."""


def prepared(cfg: DictConfig) -> tuple[torch.nn.Module, Encoded]:
    resolved = resolve(cfg)
    model = build(resolved, CPU).eval()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model, encode(resolved.run, resolved.settings)["train"]


def full_text(split: Encoded, index: int, word: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The prompt and a word after it, alone in its batch; and the labels of transformers' loss: the word's tokens."""
    prompt = split.inputs["input_ids"][index, : int(split.lengths[index])].tolist()
    tokens = torch.tensor([prompt + word])
    labels = torch.tensor([[-100] * len(prompt) + word])
    return tokens, labels


@pytest.mark.parametrize("words", ["task.label_words=[' bad',' good']", SPELT, "task.label_words=[' n',' y']"])
def test_the_loss_is_transformers_on_the_labels_words_alone(words: str, tiny: Compose) -> None:
    model, split = prepared(tiny(*TEXT, words))
    assert isinstance(split.objective, LabelWords)
    indices = [3, 0, 7, 12, 5]
    expected, likelihoods = [], []
    for index in indices:
        losses = []
        for word in split.objective.words:
            tokens, labels = full_text(split, index, word)
            losses.append(model(input_ids=tokens, labels=labels).loss * len(word))  # theirs is the mean over tokens
        likelihoods.append([-loss.item() for loss in losses])
        expected.append(losses[int(split.targets[index])])
    ours = split.loss(model, indices, Dtype.fp32, CPU)
    assert torch.allclose(ours, torch.stack(expected).mean(), atol=1e-5)
    found = split.outputs(model, indices, Dtype.fp32, CPU)
    assert torch.allclose(found, torch.tensor(likelihoods), atol=1e-4)


@pytest.mark.parametrize(("words", "positions"), [("task.label_words=[' n',' y']", 1), (SPELT, 3)])
def test_the_vocabulary_is_multiplied_out_at_the_words_alone(
    words: str, positions: int, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = prepared(tiny(*TEXT, words))
    seen = []
    original = language.OutputLayer.logits
    monkeypatch.setattr(
        language.OutputLayer,
        "logits",
        lambda layer, hidden: seen.append(tuple(hidden.shape)) or original(layer, hidden),
    )
    split.loss(model, [0, 1, 2, 3], Dtype.fp32, CPU)
    assert seen == [(4, positions, 32)] and split.inputs["input_ids"].shape[1] > 10 * positions


def test_the_loss_is_the_same_whatever_stands_in_the_batch(tiny: Compose) -> None:
    model, split = prepared(tiny(*TEXT, SPELT))
    together = split.outputs(model, list(range(8)), Dtype.fp32, CPU)
    alone = torch.cat([split.outputs(model, [index], Dtype.fp32, CPU) for index in range(8)])
    assert torch.allclose(together, alone, atol=1e-4)


def test_too_long_a_text_is_cut_and_the_words_around_it_never(tiny: Compose) -> None:
    cfg = tiny(*TEXT, SPELT, "train.max_length=24")
    run, settings = resolve(cfg)[:2]
    split = encode(run, settings)["train"]
    tokenizer = load_tokenizer(run.model, None, "")
    texts = [
        str(tokenizer.decode(row[:n])) for row, n in zip(split.inputs["input_ids"], split.lengths.tolist(), strict=True)
    ]
    assert int(split.lengths.max()) <= 24 - 3 and int(split.lengths.max()) > 16
    assert all(text.split()[1] == "words" and text.split()[-1] == "so" for text in texts), texts[0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.label_words=[' yes',' ye']", "one is the beginning of another"),
        ("task.label_words=[' n']", "2 different words are needed"),
        ("task.label_words=[' n',' n']", "2 different words are needed"),
        ("task.prompt='no place'", r"must hold \{text\} once"),
        ("train.max_length=8", "hold no more than the prompt itself"),
        ("model=tiny_bert", "is an encoder and writes no text"),
        ("method=head_only", "there is no head to train"),
        ("method=lora method.targets=[q,embed] method.freeze_A=true", "A of the token embedding starts at zero"),
    ],
)
def test_an_impossible_question_is_refused(override: str, message: str, tiny: Compose) -> None:
    with pytest.raises(InputError, match=message):
        cfg = tiny(*TEXT, *(override.split() if override.startswith("method") else [override]))
        resolved = resolve(cfg)
        encode(resolved.run, resolved.settings)
