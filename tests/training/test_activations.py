"""The second moments of inputs, against a plain forward pass of transformers, one example at a time."""

import logging
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.fixture_types import Compose

from lora_repro.config.resolve import Resolved, resolve
from lora_repro.errors import InputError
from lora_repro.models.load import load_model
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.tasks.objectives.label_words import LabelWords
from lora_repro.tasks.objectives.language import NO_TOKEN
from lora_repro.tasks.objectives.text import TextToWrite
from lora_repro.training import activations
from lora_repro.training.second_moments import VECTORS, _key, second_moments

ROOT = Path(__file__).resolve().parents[2]


MODELS = {
    "tiny_bert": ["model=tiny_bert"],
    "tiny_llama": ["model=tiny_llama"],
    "text": ["model=tiny_llama", "task.form=text"],
    "written": ["model=tiny_llama", "task=restaurants", "task.train_size=64", "train.max_length=256"],
}
"""Answers in words, and written texts, are read too, all but their last tokens: prompts alone would not do."""


def resolved_of(tiny: Compose, tmp_path: Path, *overrides: str) -> Resolved:
    return resolve(tiny(f"paths.cache={tmp_path / 'cache'}", *overrides))


def answer_of(split: Encoded, i: int) -> list[int]:
    """The tokens of an example's answer; none where a head answers."""
    match split.objective:
        case LabelWords():
            return split.objective.words[int(split.targets[i])]
        case TextToWrite():
            return [token for token in split.targets[i].tolist() if token != NO_TOKEN]
    return []


def hidden_states(resolved: Resolved, examples: int) -> list[list[torch.Tensor]]:
    """Returns the hidden states of each example without padding: the embeddings, then the output of each layer."""
    run, paths = resolved.run, resolved.settings.paths
    model = load_model(run, paths.model, paths.cache, torch.device("cpu")).eval()
    split, states = encode(run, resolved.settings)["train"], []
    for i in range(examples):
        tokens = split.inputs["input_ids"][i : i + 1, : int(split.lengths[i])]
        tokens = torch.cat([tokens, torch.tensor([answer_of(split, i)[:-1]], dtype=torch.long)], dim=1)
        with torch.inference_mode():
            found = model.base_model(input_ids=tokens, output_hidden_states=True)  # pyright: ignore[reportCallIssue]
        states.append([state[0].double() for state in found.hidden_states])
    return states


@pytest.mark.parametrize("name", MODELS)
def test_second_moments_are_those_of_the_tokens_without_padding(tiny: Compose, tmp_path: Path, name: str) -> None:
    resolved = resolved_of(tiny, tmp_path, *MODELS[name])
    arch = resolved.run.arch
    sites = arch.select(["q", "v"])
    found = second_moments(resolved.run, resolved.settings, sites, examples=40)
    assert list(found) == [site.name for site in sites]
    states = hidden_states(resolved, 40)
    assert len({len(state[0]) for state in states}) > 1  # lengths differ, so there was padding
    if arch.is_decoder:
        norm = load_model(resolved.run, None, "", torch.device("cpu")).base_model.layers[0].input_layernorm  # pyright: ignore
        x = torch.cat([norm(state[0].float()).double() for state in states])
    else:
        x = torch.cat([state[0] for state in states])
    expected = (x.T @ x / len(x)).detach().numpy()
    for role in "qv":
        np.testing.assert_allclose(found[f"layers.0.{role}"], expected, rtol=1e-5, atol=1e-6)


def test_the_last_layers_query_reads_the_first_position_and_its_values_all(tiny: Compose, tmp_path: Path) -> None:
    """Of 30 examples the values see more than ten inputs a dimension; the query reads on, to the last example."""
    resolved = resolved_of(tiny, tmp_path)
    sites = [site for site in resolved.run.arch.sites if site.name in ("layers.1.q", "layers.1.v")]
    found = second_moments(resolved.run, resolved.settings, sites, examples=30)
    before = [state[1] for state in hidden_states(resolved, 64)]
    values = torch.cat(before[:30])
    assert len(values) > VECTORS * 32 > len(before) == resolved.run.task.train_size
    for name, x in (("layers.1.q", torch.stack([s[0] for s in before])), ("layers.1.v", values)):
        np.testing.assert_allclose(found[name], (x.T @ x / len(x)).numpy(), rtol=1e-5, atol=1e-6)


def test_what_was_found_is_kept_and_what_is_damaged_is_found_again(
    tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolved_of(tiny, tmp_path)
    q, v = (resolved.run.arch.select([role])[:1] for role in "qv")
    collected, collect = [], activations.measure
    monkeypatch.setattr(
        activations,
        "measure",
        lambda run, c, sites, *more: collected.append([s.name for s in sites]) or collect(run, c, sites, *more),
    )
    first = second_moments(resolved.run, resolved.settings, q)
    again = second_moments(resolved.run, resolved.settings, [*q, *v])
    np.testing.assert_array_equal(first["layers.0.q"], again["layers.0.q"])
    assert collected == [["layers.0.q"], ["layers.0.v"]]
    [kept] = (tmp_path / "cache" / "second_moments").rglob("layers.0.q.npy")
    assert kept.parent.name.startswith("tiny_bert-generated-")
    kept.write_bytes(kept.read_bytes()[:200])
    repaired = second_moments(resolved.run, resolved.settings, q)
    np.testing.assert_array_equal(first["layers.0.q"], repaired["layers.0.q"])
    assert collected[2:] == [["layers.0.q"]]
    kept.write_bytes(b"\x80\x04.")  # a pickle is not read
    second_moments(resolved.run, resolved.settings, q)
    assert collected[3:] == [["layers.0.q"]]


def test_what_is_kept_is_read_without_torch(tiny: Compose, tmp_path: Path) -> None:
    resolved = resolved_of(tiny, tmp_path)
    sites = resolved.run.arch.select(["q"])
    found = second_moments(resolved.run, resolved.settings, sites, examples=4)
    given = tmp_path / "given.pickle"
    given.write_bytes(pickle.dumps((resolved.run, resolved.settings, sites, 4)))
    code = f"""
import pickle, sys
sys.modules["torch"] = None
from lora_repro.training.second_moments import second_moments
print(sum(float(matrix.sum()) for matrix in second_moments(*pickle.load(open({str(given)!r}, "rb"))).values()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(sum(float(matrix.sum()) for matrix in found.values()))


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("seed=3", True),
        ("method.r=2", True),
        ("task.permute_labels=true", True),
        ("train.learning_rate=0.5", True),
        ("task.train_size=63", False),
        ("train.max_length=20", False),
        ("model=tiny_llama", False),
        ("paths.data=elsewhere", True),
    ],
)
def test_only_what_decides_the_inputs_names_the_kept_file(tiny: Compose, override: str, same: bool) -> None:
    found = [resolve(tiny(*more)) for more in ([], [override])]
    keys = [_key(each.run, each.settings, 512) for each in found]
    assert (keys[0] == keys[1]) is same


@pytest.mark.parametrize(
    ("override", "same"), [("seed=3", False), ("paths.data=elsewhere", False), ("method.r=2", True)]
)
def test_of_written_texts_the_permutation_and_of_unchecked_data_the_folder_name_it_too(
    tiny: Compose, override: str, same: bool
) -> None:
    """MNLI's training examples are not checked by a digest: another folder may hold another copy."""
    asked = ("model=tiny_llama", "task=mnli", "task.form=text", "task.permute_labels=true")
    found = [resolve(tiny(*asked, *more)) for more in ([], [override])]
    keys = [_key(each.run, each.settings, 512) for each in found]
    assert (keys[0] == keys[1]) is same


def test_a_cache_that_cannot_be_written_costs_only_the_keeping(
    tiny: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    resolved = resolve(tiny(f"paths.cache={tmp_path / 'file'}"))
    with caplog.at_level(logging.WARNING):
        found = second_moments(resolved.run, resolved.settings, resolved.run.arch.select(["q"])[:1], examples=4)
    assert found["layers.0.q"].shape == (32, 32)
    assert "could not be written" in caplog.text


def test_the_token_embedding_reads_no_vectors(tiny: Compose) -> None:
    resolved = resolve(tiny())
    with pytest.raises(InputError, match="embed reads tokens"):
        second_moments(resolved.run, resolved.settings, resolved.run.arch.select(["embed"]))
