"""A model of any class of transformers is read from its folder: its shapes, its matrices, its head."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from lora_repro.config.identity import run_id
from lora_repro.config.resolve import Resolved, resolve
from lora_repro.errors import InputError
from lora_repro.models.arch import Blueprint
from lora_repro.models.arch.names import find_sites
from lora_repro.models.architecture import from_headers
from lora_repro.models.load import load_model
from lora_repro.models.meta import build
from lora_repro.models.parts import features_of
from lora_repro.models.tokenizer import load_tokenizer
from lora_repro.models.weights import shapes_in, weight_files

CLASSIFIER, LANGUAGE = AutoModelForSequenceClassification, AutoModelForCausalLM
ATTENTION = ["q", "k", "v", "o"]
GATED = [*ATTENTION, "up", "down", "gate", "embed"]
ENCODER = [*ATTENTION, "up", "down", "embed"]
ROLES = {
    "qwen3": GATED,
    "mistral": GATED,
    "gemma": GATED,
    "phi": ENCODER,
    "mixtral": [*ATTENTION, "embed"],
    "qwen2_moe": [*ATTENTION, "embed"],
    "distilbert": ENCODER,
    "electra": ENCODER,
    "xlm-roberta": ENCODER,
    "modernbert": ["o", "down", "embed"],
}
"""What is taken by its name: experts have no single up, down and gate, and ModernBERT computes q, k and v at once."""
HEADS = {
    "distilbert": ("pre_classifier", "classifier"),
    "electra": ("classifier",),
    "xlm-roberta": ("classifier",),
    "modernbert": ("head", "classifier"),
}
WRITERS = [family for family in ROLES if family not in HEADS]


def written(folder: Path, family: str, auto: Any = CLASSIFIER, **config: Any) -> Path:
    return write(folder, family, words_tokenizer(pad_token="<unk>"), auto=auto, **config)


def resolved(tiny: Compose, folder: Path, *overrides: str) -> Resolved:
    given = (f"paths.model={folder}", "preset@train=tiny_llama", "train.dtype=fp32", "method=full")
    return resolve(tiny("model=local", *given, *overrides))


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", ROLES)
def test_every_weight_of_the_class_is_counted_and_the_matrices_are_found(
    family: str, tiny: Compose, tmp_path: Path
) -> None:
    folder = written(tmp_path / "m", family)
    run = resolved(tiny, folder).run
    theirs = CLASSIFIER.from_pretrained(folder)
    assert shapes(theirs) == dict(run.arch.parameters)
    assert run.arch.roles == ROLES[family] and run.arch.num_layers == 2
    assert run.arch.head_modules == HEADS.get(family, ("score",))
    for site in run.arch.sites:
        assert tuple(theirs.get_parameter(f"{site.module}.weight").shape) == site.weight_shape


def test_biases_by_another_name_are_biases(tiny: Compose, tmp_path: Path) -> None:
    """DeBERTa v1 calls those of its queries and values q_bias and v_bias."""
    arch = resolved(tiny, written(tmp_path / "m", "deberta")).run.arch
    named = [name.rpartition(".")[2] for name in arch.biases]
    assert named.count("q_bias") == named.count("v_bias") == arch.num_layers < named.count("bias")


@pytest.mark.parametrize("family", WRITERS)
def test_every_weight_of_a_language_model_is_counted_once(family: str, tiny: Compose, tmp_path: Path) -> None:
    folder = written(tmp_path / "m", family, LANGUAGE)
    arch = resolved(tiny, folder, "task=movies", "task.form=text").run.arch
    theirs = LANGUAGE.from_pretrained(folder)
    assert shapes(theirs) == dict(arch.parameters) and arch.head_size == 0
    assert arch.size() == sum(parameter.numel() for parameter in theirs.parameters())
    assert ("lm_head.weight" in arch.parameters) != family.startswith("gemma")  # whose output layer is the embedding


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "mistral", "gemma", "phi"])
@pytest.mark.parametrize("num_labels", [3, None])
def test_the_headers_of_the_weights_tell_what_the_class_does(
    family: str, is_tied: bool, num_labels: int | None, tmp_path: Path
) -> None:
    folder = written(tmp_path / "m", family, LANGUAGE, tie_word_embeddings=is_tied)
    config = json.loads((folder / "config.json").read_text())
    told = from_headers(config, shapes_in(weight_files(folder)) or {}, num_labels)
    built = build(folder / "config.json", config, num_labels)
    assert told == built and Blueprint.from_dict(json.loads(json.dumps(built.to_dict()))) == built


def test_a_decoder_is_read_without_torch(tiny: Compose, tmp_path: Path) -> None:
    folder = written(tmp_path / "m", "mistral", LANGUAGE)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from lora_repro.config.compose import compose\nfrom lora_repro.config.resolve import resolve\n"
        f"run = resolve(compose(['model=local', 'paths.model={folder}', 'task=generated', 'method.r=2', "
        "'preset@train=tiny_llama'])).run\nprint(run.method.count(run.arch).method, run.arch.size())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    arch = resolved(tiny, folder).run.arch
    q, v = 2 * (32 + 32), 2 * (32 + 16)  # r (d_in + d_out); two of the four heads are v's
    assert done.stdout.split() == [str(2 * (q + v)), str(arch.size())], done.stderr


@pytest.mark.parametrize(
    ("family", "form", "why"),
    [
        ("t5", "label", "an encoder with a decoder: which of the two is adapted"),
        ("distilbert", "text", "transformers has no class of this architecture with an output layer"),
        ("electra", "text", "its output layer is not called lm_head"),
        ("bloom", "label", "does not say how long an input may be. Add the key max_position_embeddings"),
    ],
)
def test_what_is_not_known_of_a_class_is_refused_with_its_matrices(
    family: str, form: str, why: str, tiny: Compose, tmp_path: Path
) -> None:
    folder = written(tmp_path / "m", family)
    task = "task=movies" if form == "text" else "task=generated"
    with pytest.raises(InputError, match=rf"(?s){why}.*Matrices in .*\n  .*weight \(.*families.py"):
        resolved(tiny, folder, task, f"task.form={form}")


def test_an_architecture_that_transformers_does_not_know_is_refused_with_its_matrices(
    tiny: Compose, tmp_path: Path
) -> None:
    folder = write(tmp_path / "m", "qwen3", words_tokenizer(), {"model_type": "qwen9"})
    with pytest.raises(InputError, match=r"(?s)qwen9 .*unknown architecture.*layers\.\{0\.\.1\}\.self_attn\.q_proj"):
        resolved(tiny, folder)


def test_a_matrix_that_no_name_tells_is_refused_with_those_there_are_and_what_to_say(
    tiny: Compose, tmp_path: Path
) -> None:
    folder = written(tmp_path / "m", "modernbert")
    with pytest.raises(InputError) as error:
        resolved(tiny, folder, "method=lora", "method.targets=[q,v]")
    message = str(error.value)
    assert "no matrix 'q' in modernbert" in message and "model.layers.{0..1}.attn.Wqkv.weight (96, 32)" in message
    assert "model.sites.q_k_v=" in message


def test_a_site_that_is_given_is_adapted_and_enters_the_id(tiny: Compose, tmp_path: Path) -> None:
    folder = written(tmp_path / "m", "modernbert")
    lora = ("method=lora", "method.r=2", "method.targets=[q,v]")
    run = resolved(tiny, folder, "model.sites.q_k_v=layers.*.attn.Wqkv", *lora).run
    q, k, v = (next(site for site in run.arch.sites if site.name == f"layers.1.{role}") for role in "qkv")
    assert q.module == v.module == "model.layers.1.attn.Wqkv" and (q.d_in, q.d_out) == (32, 32)
    assert [site.part.position if site.part else None for site in (q, k, v)] == [0, 1, 2]
    plain, named = (
        resolved(tiny, folder, "method=lora", "method.r=2", "method.targets=[o]", *sites).run
        for sites in ((), ("model.sites.o=layers.*.attn.Wo",))
    )
    assert plain.model.sites == {} and run_id(plain) != run_id(named) and plain.arch.sites == named.arch.sites


def test_two_spellings_of_one_site_are_one_run(tiny: Compose, tmp_path: Path) -> None:
    folder = written(tmp_path / "m", "modernbert")
    short, whole = (
        resolved(tiny, folder, f"model.sites.o={given}", "method=lora", "method.r=2", "method.targets=[o]").run
        for given in ("*.attn.Wo", "model.layers.*.attn.Wo")
    )
    assert short.model.sites == whole.model.sites == {"o": "model.layers.*.attn.Wo"} and run_id(short) == run_id(whole)


@pytest.mark.parametrize("role", ["q", "k", "v"])
def test_the_parts_of_a_fused_module_are_the_matrices_they_are_said_to_be(
    role: str, tiny: Compose, tmp_path: Path
) -> None:
    """Without its v an attention has nothing to add up; without q or k it adds up all positions alike."""
    folder = written(tmp_path / "m", "modernbert", initializer_range=0.3)
    run = resolved(tiny, folder, "model.sites.q_k_v=layers.*.attn.Wqkv").run
    model = load_model(run, str(folder), "", torch.device("cpu")).eval()
    (site,) = (site for site in run.arch.sites if site.name == f"layers.0.{role}")
    seen = []
    model.get_submodule("model.layers.0.attn.Wo").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        features_of(model.get_parameter(f"{site.module}.weight"), site.part).zero_()
        ids = torch.arange(3, 11)[None]
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    first, last = seen[0].flatten(0, -2)[[0, -1]]
    assert (not seen[0].any()) == (role == "v") and torch.allclose(first, last, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("q=layers.*.attn.query", r"means no module.*\n(.*\n)*.*attn\.Wqkv\.weight"),
        ("q=attn.Wqkv", r"must be a module's name with one \* for the layer \(given: attn\.Wqkv\)"),
        ("q=layers.*.*.Wo", "must be a module's name with one"),
        ("embed=layers.*.attn.Wo", "must be a module's name with no"),
        ("up=Wo", "must be"),
        ("gate_up=layers.*.attn.Wo", None),
        ("q_k_v=layers.*.mlp.Wi", r"has 128 outputs, which are not 3 equal parts of 32"),
        ("q_k_v=layers.*.attn.Wo", r"has 32 outputs, which are not 3 equal parts of 32"),
    ],
)
def test_a_site_that_means_no_matrix_is_refused(given: str, why: str | None, tiny: Compose, tmp_path: Path) -> None:
    folder = written(tmp_path / "m", "modernbert")
    if why is None:
        assert "gate" in resolved(tiny, folder, f"model.sites.{given}").run.arch.roles
        return
    with pytest.raises(InputError, match=why):
        resolved(tiny, folder, f"model.sites.{given}")


def test_sites_of_a_model_that_is_counted_are_refused(tiny: Compose, tmp_path: Path) -> None:
    folder = written(tmp_path / "m", "llama")
    with pytest.raises(InputError, match=r"model\.sites: the matrices of llama are known here \(given: q\)"):
        resolved(tiny, folder, "model.sites.q=layers.*.self_attn.q_proj")


def test_a_query_of_another_stack_is_never_taken_for_the_texts() -> None:
    """A vision tower, a decoder and a cross-attention have matrices that are called alike."""
    square = (8, 8)
    text, other = "text.layers.{}.self_attn.q_proj.weight", "vision.layers.{}.self_attn.q_proj.weight"
    two = {name.format(layer): square for name in (text, other) for layer in range(2)}
    sites, reading = find_sites(two, {})
    assert sites == () and set(reading.doubtful["q"]) == {"text.layers.*.self_attn.q_proj", other[:-7].format("*")}
    assert [site.module for site in find_sites(two, {"q": "text.layers.*.self_attn.q_proj"})[0]] == [
        "text.layers.0.self_attn.q_proj", "text.layers.1.self_attn.q_proj",
    ]  # fmt: skip
    crossed = {"d.layers.0.self_attn.q_proj.weight": square, "d.layers.0.encoder_attn.q_proj.weight": square}
    assert [site.module for site in find_sites(crossed, {})[0]] == ["d.layers.0.self_attn.q_proj"]
    mixed = {"text.layers.0.self_attn.q_proj.weight": square, "vision.blocks.0.mlp.fc1.weight": square}
    sites, reading = find_sites(mixed, {})
    assert sites == () and set(reading.doubtful) == {"q", "up"}


def test_an_expert_is_not_taken_for_the_feed_forward_layer() -> None:
    names = ("experts.0.up_proj", "experts.1.up_proj", "shared_expert.up_proj", "gate")
    sites, reading = find_sites({f"m.layers.0.mlp.{name}.weight": (8, 8) for name in names}, {})
    assert sites == () and not reading.doubtful and len(reading.rest) == 3


@pytest.mark.parametrize("family", ["qwen3", "gemma", "distilbert", "electra", "modernbert", "mixtral"])
def test_a_model_scores_as_transformers_does_alone_and_in_a_batch(family: str, tiny: Compose, tmp_path: Path) -> None:
    folder = written(tmp_path / "m", family, initializer_range=0.3)
    model = load_model(resolved(tiny, folder).run, str(folder), "", torch.device("cpu")).eval()
    theirs = CLASSIFIER.from_pretrained(folder).eval()
    theirs.config.pad_token_id = None
    ids = torch.arange(3, 27).reshape(2, 12)
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    with torch.inference_mode():
        ours = model(input_ids=ids, attention_mask=mask).logits
        alone = torch.cat([theirs(input_ids=ids[:1, :5]).logits, theirs(input_ids=ids[1:]).logits])
    assert alone.std() > 0.01 and torch.allclose(ours, alone, atol=1e-5)


def test_a_head_that_reads_padding_is_refused(tiny: Compose, tmp_path: Path) -> None:
    folder = written(tmp_path / "m", "ctrl")
    with pytest.raises(InputError, match="ctrl: its scores of a text change when padding is added"):
        load_model(resolved(tiny, folder).run, str(folder), "", torch.device("cpu"))


def test_logits_that_the_class_changes_behind_the_output_layer_are_refused(tiny: Compose, tmp_path: Path) -> None:
    """Gemma 2 caps them with a tanh; products of the output layer alone would be other likelihoods."""
    folder = written(tmp_path / "m", "gemma2", LANGUAGE, final_logit_softcapping=1.0)
    run = resolved(tiny, folder, "task=movies", "task.form=text").run
    with pytest.raises(InputError, match="gemma2: caps or scales its logits"):
        load_model(run, str(folder), "", torch.device("cpu"))


def test_a_head_that_is_drawn_begins_as_transformers_would(tiny: Compose, tmp_path: Path) -> None:
    """ModernBERT's head has a norm, whose weight begins at one: zeros would say the same of every text.

    Its matrices have deviations of their own: 0.02 / sqrt(2 * 2 layers) = 0.01 and 1 / sqrt(256), each cut at twice
    that, which leaves 0.8796 of a normal distribution's deviation.
    """
    folder = written(tmp_path / "m", "modernbert", initializer_range=0.02, hidden_size=256)
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    model = load_model(resolved(tiny, folder).run, str(folder), "", torch.device("cpu"))
    head = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert {name.split(".")[0] for name in head} == {"head", "classifier"}
    assert torch.equal(head["head.norm.weight"], torch.ones(256)) and not head["classifier.bias"].any()
    for name, std in (("head.dense.weight", 0.01), ("classifier.weight", 1 / 16)):
        matrix, theirs = head[name], CLASSIFIER.from_pretrained(folder).get_parameter(name)
        assert 1.9 * std < theirs.abs().max() <= 2 * std and 1.8 * std < matrix.abs().max() <= 2 * std
        assert matrix.std().item() == pytest.approx(0.8796 * std, rel=0.1) == theirs.std().item()


def test_no_dropout_is_left_on_where_the_run_has_none(tiny: Compose, tmp_path: Path) -> None:
    for family in ("distilbert", "electra", "modernbert", "phi"):
        drops = {"seq_classif_dropout": 0.5, "classifier_dropout": 0.5, "embd_pdrop": 0.5, "mlp_dropout": 0.5}
        folder = written(tmp_path / family, family, initializer_range=0.3, **drops)
        model = load_model(resolved(tiny, folder).run, str(folder), "", torch.device("cpu")).train()
        ids = torch.arange(3, 11)[None]
        with torch.inference_mode():
            one, other = (model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for _ in range(2))
        assert torch.equal(one, other), family


def test_what_was_taken_is_written_to_the_log(tiny: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = written(tmp_path / "m", "phi")
    with caplog.at_level("INFO"):
        load_model(resolved(tiny, folder).run, str(folder), "", torch.device("cpu"))
    assert "q = model.layers.*.self_attn.q_proj (2); " in caplog.text
    assert " o = model.layers.*.self_attn.dense (2); " in caplog.text


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text", "qwen3", "gemma", "distilbert"])
def test_a_text_is_split_as_the_folders_tokenizer_does(family: str, tiny: Compose, tmp_path: Path) -> None:
    """Transformers reads a Qwen 2 folder with its class of Qwen's own tokenizer, which makes nothing of these words."""
    folder = written(tmp_path / "m", family)
    ours = load_tokenizer(resolved(tiny, folder).run.model, str(folder), "")
    assert ours("fun joy car")["input_ids"] == words_tokenizer()("fun joy car")["input_ids"] != []
