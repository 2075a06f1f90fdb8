"""Runs with tokens around the input: they learn, are scored again, write texts behind the infix, and leave room."""

import pytest
import torch
from helpers.computed_runs import computed
from helpers.fixture_types import Compose
from helpers.prefixes import LENGTHS, batch, examples, pair
from safetensors.torch import load_file

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.errors import InputError
from lora_repro.methods import LoRAPrefixLayerConfig, PrefixEmbedConfig, PrefixLayerConfig
from lora_repro.methods.prefixes.config import ASKED_ATTENTION, Form
from lora_repro.models.precision import Products, computing_as
from lora_repro.models.precision import products as in_products
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.objectives.heads import HeadWithClasses
from lora_repro.tasks.objectives.language import log_likelihood, rows_of

CPU = torch.device("cpu")
METHODS = (
    "prefix_embed",
    "prefix_layer",
    "lora_prefix_embed",
    "lora_prefix_layer",
    "prefix_layer kv",
    "lora_prefix_layer kv",
)


@pytest.mark.parametrize(
    "model",
    ["bert", *(pytest.param(name, marks=pytest.mark.long) for name in ("llama", "llama text")), "llama reverse"],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_trained_run_is_scored_again_and_one_by_one_alike(tiny: Compose, method: str, model: str) -> None:
    family, _, answer = model.partition(" ")
    task = {"text": ("task.form=text",), "reverse": ("task=reverse",)}.get(answer, ())
    name, _, is_kv = method.partition(" ")
    form = ("method.form=key_value", "method.l_i=0") if is_kv else ()
    same = (f"model=tiny_{family}", f"method={name}", *form, *task, "task.eval_size=9", "task.test_size=8")
    record, result = computed(tiny(*same))
    assert not result["flags"]["unmoved"] and result["merge_max_abs_error"] is None
    _, again = computed(tiny(*same, "train.epochs=0", f"train.init_from={record.run_id}"))
    assert again["metrics"] == result["metrics"] and again["flags"]["untrained"]
    _, alone = computed(tiny(*same, "train.epochs=0", f"train.init_from={record.run_id}", "train.batch_size=1"))
    for key in ("eval/loss", "test/loss"):
        assert alone["metrics"][key] == pytest.approx(result["metrics"][key], abs=1e-5)


def test_files_hold_the_vectors_and_a_frozen_a(tiny: Compose) -> None:
    record, _ = computed(tiny("method=lora_prefix_embed", "method.freeze_A=true"))
    names = load_file(record.folder / "trained.safetensors")
    assert names["prefix.embed"].shape == (12, 32) and sum(name.endswith("lora_A") for name in names) == 4


@pytest.mark.parametrize("model", ["gpt2", "opt-350m", "gpt_neox", "smollm2"])
def test_a_text_stands_behind_the_infix(model: str) -> None:
    ours, theirs, _ = pair(model, PrefixEmbedConfig("prefix_embed", l_p=3, l_i=2), labels=None)
    (ids, mask), lengths = batch(), torch.tensor(LENGTHS)
    split = Encoded([], {"input_ids": ids, "attention_mask": mask}, lengths, lengths, HeadWithClasses())
    targets = [[9, 4, 17], [5], [30, 31]]
    found = log_likelihood(ours, split, [0, 1, 2], rows_of(targets, CPU), Dtype.fp32, CPU)
    rows, table = [], theirs.get_input_embeddings()
    for row, target in zip(examples(ids, mask), targets, strict=True):
        front, behind = ours.prefix.embed[None, :3], ours.prefix.embed[None, 3:]
        whole = torch.cat([front, table(row), behind, table(torch.tensor([target]))], 1)
        log_p = theirs(inputs_embeds=whole).logits[0, -len(target) - 1 : -1].log_softmax(-1)
        rows.append(log_p[range(len(target)), target].sum())
    assert torch.allclose(found, torch.stack(rows), atol=1e-4)
    (gradient,) = torch.autograd.grad(found.sum(), ours.prefix.embed)
    assert gradient.any(1).all()


@pytest.mark.parametrize(
    "model", ["bert", "roberta", "mpnet", "deberta-v2", "gpt2", "opt", "gpt_neox", "llama", "gemma3"]
)
@pytest.mark.parametrize("method", ["prefix_embed", "lora_prefix_layer", "key_value"])
def test_products_in_bf16_give_about_the_same(method: str, model: str) -> None:
    config = {
        "prefix_embed": PrefixEmbedConfig("prefix_embed", l_p=3, l_i=2),
        "lora_prefix_layer": LoRAPrefixLayerConfig("lora_prefix_layer", ["q", "v"], 2, 2.0, 0.0, l_p=3, l_i=2),
        "key_value": PrefixLayerConfig("prefix_layer", l_p=3, l_i=0, form=Form.key_value),
    }[method]
    if method == "key_value" and model not in ASKED_ATTENTION:
        return
    ours, _, _ = pair(model, config)
    ids, mask = batch()
    exact = ours(input_ids=ids, attention_mask=mask).logits
    for products in (Products.bf16, Products.rounded):
        with computing_as(products), in_products(Dtype.bf16, CPU):
            rounded = ours(input_ids=ids, attention_mask=mask).logits.float()
        assert (rounded - exact).abs().max() < 0.1 * exact.abs().max()
        assert all(g.any() for g in torch.autograd.grad(rounded.sum(), [*ours.prefix.parameters()]))


def test_a_budget_is_solved_before_room_is_made(tiny: Compose) -> None:
    run = resolve(tiny("method=prefix_embed", "method.l_i=2", "method.budget=640")).run
    assert (
        isinstance(run.method, PrefixEmbedConfig) and run.method.l_p == 18 and run.method.count(run.arch).method == 640
    )
    same = ("method=prefix_embed", "method.l_i=2", "method.budget=640")
    resolve(tiny(*same, "train.max_length=108"))
    with pytest.raises(InputError, match="max_length: must be from 3 to 108 tokens"):
        resolve(tiny(*same, "train.max_length=109"))
    kv = resolve(tiny("method=prefix_layer", "method.form=key_value", "method.l_i=0", "method.budget=1K")).run
    assert kv.method.label == "prefix_layer-kv-p8" and kv.trained_by_method == 1024 and kv.method.added_tokens == 8
    assert not kv.method.can_be_compiled
    unshifted = ("method.shift_positions=false", "method.form=key_value", "method.l_i=0")
    for name in ("prefix_layer", "lora_prefix_layer"):
        method = resolve(tiny(f"method={name}", *unshifted)).run.method
        assert method.added_tokens == 0 and method.needs_a_row_of_its_own
    with pytest.raises(InputError, match=r"no l_p meets 0\.1M .* l_p = 119 trains"):
        resolve(tiny("method=prefix_layer", "method.budget=0.1M"))
    with pytest.raises(InputError, match=r"l_p: must be from 0 to 119.*\(given: 200\)"):
        resolve(tiny("method=prefix_layer", "method.l_p=200"))
    with pytest.raises(InputError, match="no token is trained"):
        resolve(tiny("method=lora_prefix_layer", "method.l_p=0", "method.l_i=0"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["lora", "init_std=0.01"], r"init_std: has no effect on method\.init=kaiming \(given: 0\.01\)\.\n.*=gaussian"),
        (["prefix_embed", "init_std=0.01"], r"init_std: has no effect on method\.init=words .*\n.*method\.init=normal"),
        (["prefix_layer", "init=normal", "init_std=0"], r"method\.init_std: must be a finite number above 0"),
        (["lora_prefix_embed", "prefix_init_std=0"], r"method\.prefix_init_std: must be a finite number above 0"),
        (["lora_prefix_layer", "prefix_init_std=0.01"], r"prefix_init_std: has no effect .*\n.*\.prefix_init=normal"),
        (
            ["lora_prefix_embed", "prefix_init=normal", "init_std=0.01"],
            r"method\.init_std: .*\n.*method\.init=gaussian",
        ),
        (["prefix_layer", "shift_positions=false"], r"shift_positions: has no effect on method\.form=activations"),
        (["lora_prefix_layer", "shift_positions=false"], r"\n.*method\.form=key_value beside it, or leave it out"),
    ],
)
def test_what_nothing_reads_is_refused_under_its_own_name(given: list[str], message: str, tiny: Compose) -> None:
    name, *keys = given
    with pytest.raises(InputError, match=message):
        resolve(tiny(f"method={name}", *(f"method.{key}" for key in keys)))


def test_what_is_read_is_taken(tiny: Compose) -> None:
    both = ("method.init=gaussian", "method.init_std=0.01", "method.prefix_init=normal", "method.prefix_init_std=0.01")
    resolve(tiny("method=lora_prefix_layer", *both, "method.l_i=0", "method.form=key_value"))
