"""Examples without data, as measurements of memory use them."""

import pytest
import torch
from helpers.fixture_types import Compose

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.tasks import Example, encoding
from lora_repro.tasks.encoding import encode
from lora_repro.tasks.objectives.made_up import has_token_types
from lora_repro.tasks.ratings import RatingsConfig
from lora_repro.training.train import build

CPU = torch.device("cpu")
LLAMA = ("model=tiny_llama", "preset@train=tiny_llama")


@pytest.mark.parametrize(
    ("overrides", "written"),
    [
        ((), 0),
        (("task=movies", "task.target=rating"), 0),
        ((*LLAMA, "task.form=text"), 1),
        ((*LLAMA, "task=reverse"), 8),
        ((*LLAMA, "task=reverse", "task.max_new_tokens=40"), 26),  # of 27 tokens, as none is read beyond
    ],
)
def test_made_up_examples_are_like_those_of_the_data(
    overrides: tuple[str, ...], written: int, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    rated = [Example(str(i), "sad joy", 1.5, str(i)) for i in range(64)]
    monkeypatch.setattr(RatingsConfig, "load", lambda *_: {"train": rated, "eval": rated, "test": rated})
    monkeypatch.setattr(encoding, "_encoded", {})
    resolved = resolve(tiny(*overrides, "train.dtype=fp32"))
    real, made_up = (
        encode(resolved.run, resolved.settings)["train"],
        resolved.run.task.objective.made_up(resolved.run, 3, 27),
    )
    assert made_up.inputs.keys() == real.inputs.keys() and type(made_up.objective) is type(real.objective)
    assert (made_up.targets.dtype, made_up.targets.dim()) == (real.targets.dtype, real.targets.dim())
    assert made_up.lengths.tolist() == [27 - written] * 3 and len(made_up.examples) == 3
    assert made_up.targets.dim() == 1 or made_up.targets.shape[1] == max(written, 1)
    assert made_up.loss(build(resolved, CPU), [0, 1, 2], Dtype.fp32, CPU).isfinite()


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        *((name, True) for name in ("bert", "electra", "deberta-v2")),
        *((name, False) for name in ("roberta", "mpnet", "gpt2", "llama", "unknown")),
    ],
)
def test_token_types_are_made_up_where_the_architectures_tokenizer_makes_them(
    architecture: str, expected: bool
) -> None:
    assert has_token_types(architecture) is expected
