"""Runs of method=peft: trained, saved, opened by PEFT, scored again, resumed; and what is refused before anything."""

import ast
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.computed_runs import computed
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from helpers.peft_tuners import (
    CASES,
    EACH,
    TARGETS,
    TYPES,
    opens_and_scores_again,
    overrides,
    stops_and_goes_on,
)
from hydra.core.utils import JobReturn
from omegaconf import DictConfig
from peft import IA3Config, LoraConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from lora_repro.config.compose import compose
from lora_repro.config.declared_types import unknown_key
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.settings import LogConfig
from lora_repro.errors import InputError
from lora_repro.methods import PeftConfig
from lora_repro.methods.peft import declared
from lora_repro.methods.peft.annotations import refused
from lora_repro.methods.peft.tuner import owner_of
from lora_repro.store.record import Record
from lora_repro.sweep import campaign
from lora_repro.sweep.grid import load
from lora_repro.tasks.encoding import encode
from lora_repro.training.train import build, train

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # what PEFT says of layers and defaults
    pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning"),
]

CPU = torch.device("cpu")
RATE = "train.learning_rate=0.02"


def peft(tiny: Compose, kind: str, *more: str) -> DictConfig:
    return tiny(*overrides(kind, "tiny_bert"), RATE, *more)


WHOLE = "method.targets=[q,k,v]"


@pytest.mark.parametrize(
    ("kind", "given"),
    [("LORA", ["method.config={use_dora:true}"]), ("IA3", []), ("VERA", ["method.config={r:16}"]), ("HRA", [])],
)
@pytest.mark.parametrize(
    "family",
    ["gpt2", *(pytest.param(name, marks=pytest.mark.long) for name in ("gpt_neox", "opt", "qwen3")), "roberta"],
)
def test_peft_opens_tuners_of_other_architectures(
    kind: str, given: list[str], family: str, tiny: Compose, tmp_path: Path
) -> None:
    if (kind, family) == ("HRA", "gpt2"):
        with pytest.raises(InputError, match=r"HRA: PEFT [\d.]+ refuses it on this gpt2: .*not supported"):
            opens_and_scores_again(kind, family, [WHOLE], tiny, tmp_path)
        return
    opens_and_scores_again(kind, family, [WHOLE, *given], tiny, tmp_path)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_peft_opens_ia3_on_the_modules_that_peft_chooses(family: str, tiny: Compose, tmp_path: Path) -> None:
    """PEFT refuses feed-forward modules that are not spelt as those among which they are."""
    opens_and_scores_again("IA3", family, [], tiny, tmp_path)


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("kind", EACH)
def test_peft_opens_what_a_run_saves_and_a_run_scores_it_again(
    kind: str, family: str, tiny: Compose, tmp_path: Path
) -> None:
    opens_and_scores_again(kind, family, None, tiny, tmp_path)


@pytest.mark.parametrize(
    "given",
    [
        ["ADALORA", TARGETS, "method.config={init_r:6,target_r:2,tinit:1,tfinal:1}"],
        ["LORA", TARGETS, "method.config={r:4,use_dora:true,lora_dropout:0.1}"],
        ["LORA", TARGETS, "method.config={r:4,init_lora_weights:pissa}"],
        ["VERA", TARGETS],
        ["LN_TUNING"],
    ],
)
@pytest.mark.parametrize("stop_at", [2, 4])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    given: list[str], stop_at: int, tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, *rest = given
    stops_and_goes_on(overrides(kind, "tiny_bert", rest), stop_at, tiny, tmp_path, monkeypatch)


def test_adaloras_allocator_ends_at_target_r_and_its_penalty_is_pefts(tiny: Compose) -> None:
    given = overrides("ADALORA", "tiny_bert", [TARGETS, "method.config={init_r:6,target_r:2}"])
    record, result = computed(tiny(*given, RATE, "train.batch_size=8"))
    tensors = load_file(record.folder / "adapter" / "adapter_model.safetensors")
    left = [int((tensor != 0).sum()) for name, tensor in tensors.items() if name.endswith("lora_E")]
    assert len(left) == 4 and sum(left) == 4 * 2
    assert result["provenance"]["peft"]["config"]["init_r"] == 6
    assert result["provenance"]["peft"]["config"]["total_step"] == result["metrics_by_epoch"][-1]["step"]
    resolved = resolve(tiny(*given))
    model = build(resolved, CPU)
    inputs, targets = encode(resolved.run, resolved.settings)["train"].batch([0, 1, 2], CPU)
    plain = model(**inputs, labels=targets).loss
    theirs = owner_of(model).base_model(**inputs, labels=targets).loss - plain
    ours = resolved.run.method.penalty(model)
    assert ours is not None and torch.allclose(ours, theirs, atol=1e-6) and ours > 0


def test_the_same_run_starts_alike_whatever_ran_before(tiny: Compose) -> None:
    resolved = resolve(peft(tiny, "LORA"))
    torch.manual_seed(1)
    one = build(resolved, CPU).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = build(resolved, CPU).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], other[name]) for name in one)
    seed = build(resolve(peft(tiny, "LORA", "seed=5")), CPU).state_dict()
    assert any(not torch.equal(one[name], seed[name]) for name in one if ".default" in name)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_that_changes_the_base_leaves_the_shared_weights(start: str, tiny: Compose) -> None:
    from lora_repro.models import load as models

    given = f"method.config={{r:4,init_lora_weights:{start}}}"
    computed(tiny(*overrides("LORA", "tiny_bert", [TARGETS, given]), RATE))
    assert all(not shared.changed() for _, shared in models._all_kept.values())
    one, _ = computed(tiny(*overrides("LORA", "tiny_bert", [TARGETS]), RATE))
    models._all_kept.clear()
    other = build(resolve(tiny(*overrides("LORA", "tiny_bert", [TARGETS]))), CPU)
    assert other is not None and one.state.value == "finished"


@pytest.mark.parametrize("kind", EACH)
def test_a_tuner_trains_on_a_base_in_bf16(kind: str, tiny: Compose) -> None:
    resolved = resolve(peft(tiny, kind, "train.dtype=bf16", "train.max_steps=2"))
    model = build(resolved, CPU)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    _, result = computed(peft(tiny, kind, "train.dtype=bf16", "train.max_steps=2"))
    assert result["metrics"]["eval/loss"] < 2


REFUSED: list[tuple[list[str], str]] = [
    (["method.peft_type=VEAR"], r"has no VEAR\. Did you mean 'VERA'\?\nIt has: .*VERA"),
    (["method.peft_type=XLORA"], "mixes adapters"),
    (["method.peft_type=LILY"], "averages over a batch"),
    (["method.peft_type=VERA", "method.config={rank:4}"], r"VERA of PEFT [\d.]+ has no rank\..*\n?.*Its keys: r,"),
    (["method.config={task_type:SEQ_CLS}"], "follows from the task"),
    (["method.config={init_lora_weights:loftq}"], "rounds the base with bitsandbytes"),
    (["method.config={loftq_config:{loftq_bits:4}}"], "rounds the base with bitsandbytes"),
    (["method.config={init_lora_weights:pissa_niter_4}"], "drawn at random"),
    (["method.config=7"], r"method\.config: keys and values"),
    (["method.targets=[q,x]"], "no matrix 'x'"),
    (["method.targets=[q,q]"], "each once"),
    (["method.layers=[7]"], "no layer 7"),
    (
        ["method.targets=[q]", "method.config={target_modules:[query]}"],
        r"says the same as method\.config\.target_modules",
    ),
    ([TARGETS, "method.config={layers_to_transform:[0]}"], r"config\.layers_to_transform: PEFT reads it beside short"),
    ([TARGETS, "method.config={layers_pattern:layer}"], r"config\.layers_pattern: PEFT reads it beside short"),
    (["model=tiny_llama", "method.targets=[q,embed]", "method.layers=[0]"], r"the token embedding is in no layer"),
    (["method.peft_type=PROMPT_TUNING"], r"num_virtual_tokens: PROMPT_TUNING needs a number of tokens"),
    (["method.peft_type=ADALORA", "method.config={target_r:12}"], "must be below init_r"),
    (["method.peft_type=ADALORA", "method.config={total_step:100}"], "number of steps of the run"),
    (["method.config={target_modules:all-linear}"], "Name them"),
    (
        ["method.peft_type=PVERA", "method.config={generator_seed:0}"],
        r"generator_seed: is not offered .*no seed of a run",
    ),
    (["method.peft_type=PVERA", "method.config={sample_at_inference:true}"], r"sample_at_inference: is not offered"),
    (["method.peft_type=ADAMSS", "method.config={subspace_rank:2}"], r"subspace_rank: must be 1 \(given: 2\)"),
    (["method.config={use_qalora:true}"], r"config\.use_qalora: is not offered here: it changes layers of GPTQ"),
    (["method.peft_type=ADALORA", "method.config={r:8}"], r"config\.r: AdaLoRA does not read it: its ranks are init_r"),
    (["method.peft_type=ADALORA", "method.config={use_rslora:true}"], r"config\.use_rslora: AdaLoRA does not read it"),
    (["method.peft_type=ADALORA", "method.config={init_lora_weights:pissa}"], "offers no other start"),
    (
        [TARGETS, "method.config={rank_pattern:{qurey:4}}"],
        r"qurey matches none .*Did you mean 'query'\?\nTheir",
    ),
    ([TARGETS, "method.config={alpha_pattern:{key:4}}"], r"key matches none .*\nTheir names end in: query, value\."),
    ([TARGETS, "method.layers=[1]", "method.config={rank_pattern:{layer.0.*query:4}}"], r"matches none"),
    ([TARGETS, "method.config={rank_pattern:{*query:4}}"], r"\*query matches none"),
    (["method.config={r:16}", TARGETS, "method.budget=2000"], r"config\.r: follows from method\.budget, and both are"),
    (
        ["method.peft_type=ADALORA", "method.config={init_r:6}", TARGETS, "method.budget=2000"],
        r"config\.init_r: follows from method\.budget, and both are given\.\nGive one of the two",
    ),
    (
        ["method.peft_type=OFT", TARGETS, "method.budget=2000"],
        r"OFT does not change in equal steps, as its blocks must divide .* 2000\)\.\n.*\{oft_block_size:16\}",
    ),
    (["method.peft_type=ADALORA", "method.config={tinit:5,tfinal:5}", "train.max_steps=10"], "10 steps, and the run"),
    (["method.peft_type=BONE"], r"has no BONE\. It is MISS there\."),
    (["method.config={use_dora:perhaps}"], r"config\.use_dora: must be true or false \(given: perhaps\)\."),
    (["method.config={r:abc}"], r"config\.r: must be a number \(given: abc\)"),
    (["method.config={r:true}"], r"config\.r: must be a number \(given: True\)"),
    (["method.config={bias:foo}"], r"config\.bias: must be none or all or lora_only \(given: foo\)"),
    (["method.config={target_modules:[1]}"], r"target_modules: must be a list, each a text or a text or null"),
    (["method.config={init_lora_weights:nope}"], "init_lora_weights: must be true or false or gaussian or"),
    (["method.peft_type=ADALORA", "method.config={init_r:many}"], r"init_r: must be a number \(given: many\)"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_cannot_work_is_refused_while_composing(given: list[str], message: str, tiny: Compose) -> None:
    with pytest.raises(InputError, match=message):
        resolve(tiny("method=peft", *given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["method.peft_type=C3A", "method.config={block_size:7}"], "C3A: PEFT [\\d.]+ refuses it on this bert"),
        (["method.config={target_modules:[nowhere]}"], "refuses it on this bert: .*nowhere"),
        (
            ["method.peft_type=OFT", TARGETS, "method.config={oft_block_size:7}"],
            r"oft_block_size: must divide the width .* is 32 \(given: 7\)\.\nThe nearest there is 8\.",
        ),
        (["method.peft_type=OFT", TARGETS, "method.config={oft_block_size:0,r:5}"], r"config\.r: must divide"),
        (["method.config={r:0}"], "refuses it on this bert: .*positive"),
        (
            [
                "method.config={target_modules:[bert.encoder.layer.0.attention.self.query,bert.encoder.layer.1.attention.self.query]}",
                "method.layers=[0]",
            ],
            r"method\.layers: LORA of PEFT does not read it .* adapt bert\.encoder\.layer\.1\.attention",
        ),
        (
            ["method.peft_type=LOHA", "method.config={target_modules:'.*self[.]query',layers_to_transform:[1]}"],
            r"config\.layers_to_transform: LOHA of PEFT does not read it .* adapt .*layer\.0\.attention",
        ),
        (["method.config={rank_pattern:{key:4}}"], r"key matches none .*\nTheir names end in: query, value\."),
        (
            ["method.peft_type=VBLORA", "method.config={vector_length:8,num_vectors:16,save_only_topk_weights:true}"],
            r"with these keys VBLORA of PEFT saves .*topk_indices, .*save_only_topk_weights': True\}\)\.\nGive others",
        ),
    ],
)
def test_what_only_peft_or_the_data_can_tell_is_refused_before_the_model_is_loaded(
    given: list[str], message: str, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_repro.training import train as training

    monkeypatch.setattr(training, "assemble", lambda *_: pytest.fail("the model was loaded"))
    resolved = resolve(tiny("method=peft", *given))
    with pytest.raises(InputError, match=message):
        train(resolved, Record(resolved.settings.paths.outputs, run_id(resolved.run)))


def test_a_sweep_in_which_peft_refuses_one_run_starts_none(tmp_path: Path) -> None:
    """MISS's own r of 64 is more than the width of 32: its runs would fail after those of the other tuner."""
    given = ["model=tiny_bert", "task=generated", "method=peft", TARGETS, "train.learning_rate=1e-2"]
    sweep = load(compose, [*given, "method.peft_type=LORA,MISS"])

    def launch(job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        pytest.fail(f"launched from {initial_job_idx}: {job_overrides}")

    with pytest.raises(InputError, match=r"(?s)MISS: PEFT .* refuses it on this bert.*In the job: .*MISS"):
        campaign.run(lambda: sweep, str(tmp_path), LogConfig(), campaign.Launcher(launch))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("annotation", "taken", "others"),
    [
        ("int", [3, 0.5], ["3", True, None, [3]]),
        ("Optional[Union[list[str], str]]", [None, "q", ["q", "v"]], [3, [3]]),
        ("bool | Literal['gaussian', 'pissa_niter_[number of iters]']", [True, "gaussian", "pissa_niter_7"], ["g", 1]),
        ("Optional[dict[str, int]]", [{}, {"q": 3}, None], [3]),
        ("Union[LoftQConfig, dict]", [7, {}, "what is not known is taken"], []),
    ],
)
def test_values_fit_the_annotations_of_pefts_source(annotation: str, taken: list[Any], others: list[Any]) -> None:
    kind = ast.parse(annotation, mode="eval").body
    assert [refused(value, kind) for value in taken] == [None] * len(taken)
    assert all(refused(value, kind) for value in others)


def test_patterns_that_match_and_keys_at_their_defaults_are_taken(tiny: Compose) -> None:
    patterns = "method.config={r:2,rank_pattern:{query:4,layer.1.attention.self.value:1},alpha_pattern:{value:3}}"
    run = resolve(tiny("method=peft", TARGETS, patterns)).run
    assert run.trained_by_method == 64 * (4 + 4 + 2 + 1)  # q of both layers, v of the first and of the second
    resolve(tiny(*overrides("ADALORA", "tiny_bert", [TARGETS, "method.config={lora_alpha:4,init_lora_weights:true}"])))
    resolve(
        tiny("method=peft", "method.peft_type=PVERA", "method.config={generator_seed:null,sample_at_inference:false}")
    )


def test_a_layer_of_several_matrices_is_adapted_whole_or_not_at_all() -> None:
    from helpers.architectures import PAPER_ARCHS

    method = PeftConfig("peft", peft_type="LORA", targets=["q", "v"])
    with pytest.raises(InputError, match=r"computes q, k, v at once.*\(given without k\)"):
        method.check(PAPER_ARCHS["gpt2_medium"])
    method = PeftConfig("peft", peft_type="LORA", targets=["q", "k", "v"])
    method.check(PAPER_ARCHS["gpt2_medium"])
    assert method.count(PAPER_ARCHS["gpt2_medium"]).method == 24 * 8 * (1024 + 3 * 1024)


def test_runs_are_composed_and_read_without_torch_and_without_peft() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft') : sys.modules[name] = None\n"
        "from lora_repro.config.compose import compose\n"
        "from lora_repro.config.identity import run_id\nfrom lora_repro.config.resolve import resolve\n"
        "given = ['model=tiny_bert', 'task=generated', 'method=peft', 'method.peft_type=VERA']\n"
        "print(run_id(resolve(compose(given)).run))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("tiny_bert-generated-peft-vera-s0-"), done.stderr


def test_without_peft_it_is_said_how_to_install_it(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared, "_folder", lambda: None)
    declared.tuners.cache_clear()
    try:
        method = resolve(tiny("method=peft")).run.method
        with pytest.raises(InputError, match=r"PEFT is not installed\.\nInstall it: pip install 'lora_repro\[peft\]'"):
            declared.tuners()
        assert isinstance(method, PeftConfig)
    finally:
        declared.tuners.cache_clear()


def test_an_id_holds_what_was_given_and_the_record_the_rest(tiny: Compose) -> None:
    ids = [
        run_id(resolve(tiny("method=peft", *given)).run)
        for given in (
            [],
            ["method.peft_type=lora"],
            ["method.config={r:8}"],
            ["method.targets=[q,v]"],
            ["method.layers=1"],
        )
    ]
    assert ids[0] == ids[1] and len({*ids}) == 4
    record, result = computed(peft(tiny, "LORA"))
    told = result["provenance"]["peft"]
    assert told["version"] == declared.version() and told["config"]["r"] == 8 and told["config"]["lora_dropout"] == 0.0
    assert told["config"]["target_modules"] == [
        f"bert.encoder.layer.{layer}.attention.self.{name}" for layer in (0, 1) for name in ("query", "value")
    ]
    saved = json.loads((record.folder / "adapter" / "adapter_config.json").read_text())
    assert {**saved, "base_model_name_or_path": None} == told["config"]


def test_an_adapter_of_other_settings_is_refused(tiny: Compose) -> None:
    record, _ = computed(peft(tiny, "VERA"))
    given = ["train.epochs=0", f"train.init_from={record.run_id}"]
    with pytest.raises(InputError, match=r"the adapter has r = 256, the run 64"):
        build(resolve(tiny(*overrides("VERA", "tiny_bert", [TARGETS, "method.config={r:64}"]), *given)), CPU)
    with pytest.raises(InputError, match=r"the adapter has .*\nGive the adapter's own"):
        build(resolve(tiny(*overrides("IA3", "tiny_bert"), *given)), CPU)


NAMED: dict[str, tuple[Any, list[str]]] = {
    "ends": (VeraConfig(r=4, target_modules=["query", "value"]), [TARGETS, "method.config={r:4}"]),
    "ends in a layer": (
        LoraConfig(r=4, target_modules=["query", "value"], exclude_modules=["key", "up"], layers_to_transform=[1]),
        [TARGETS, "method.layers=[1]", "method.config={r:4,exclude_modules:[up,key]}"],
    ),
    "pattern": (LoraConfig(r=4, target_modules=".*self.(query|value)"), [TARGETS, "method.config={r:4}"]),
    "feed-forward": (
        IA3Config(target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]),
        ["method.config={target_modules:[key,output.dense],feedforward_modules:[output.dense]}"],
    ),
}
"""Settings in which a user of PEFT names modules, and those of a run on the same."""


@pytest.mark.parametrize("named", NAMED)
def test_a_folder_in_which_peft_names_modules_in_its_own_way_is_read(named: str, tiny: Compose, tmp_path: Path) -> None:
    config, given = NAMED[named]
    base = write(tmp_path / "base", "bert", words_tokenizer(pad_token="<unk>"), max_position_embeddings=80)
    config = type(config)(**{**config.to_dict(), "task_type": "SEQ_CLS"})
    theirs = get_peft_model(AutoModelForSequenceClassification.from_pretrained(base), config).eval()
    for name, parameter in theirs.named_parameters():
        if "vera_lambda" in name or "lora_B" in name or "ia3" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    kind = ["model=local", f"paths.model={base}", *overrides(config.peft_type.value, "tiny_bert", [])[1:]]
    scored = ["train.epochs=0", f"train.init_from={tmp_path / 'theirs'}"]
    resolved = resolve(tiny(*kind, *given, *scored))
    inputs, _ = encode(*resolved[:2])["test"].batch(list(range(8)), CPU)
    assert torch.allclose(build(resolved, CPU).eval()(**inputs).logits, theirs(**inputs).logits, atol=1e-5)
    with pytest.raises(InputError, match=r"the adapter has (target|feedforward)_modules = "):
        build(resolve(tiny(*kind, "method.targets=[q,k]", *given[1:], *scored)), CPU)


@pytest.mark.parametrize(
    ("kind", "budget", "key", "size"),
    [
        ("LORA", 1024, "r", 4),
        ("VERA", 4 * 32 + 4 * 10, "r", 10),
        ("FOURIERFT", "0.4K", "n_frequency", 100),
        ("LOKR", 4 * (16 + 64), "r", 4),
        ("LOKR", 4 * (16 + 48) + 1, "r", 3),
    ],
)
def test_a_size_is_solved_from_a_budget(kind: str, budget: Any, key: str, size: int, tiny: Compose) -> None:
    run = resolve(tiny(*overrides(kind, "tiny_bert", [TARGETS]), f"method.budget={budget}")).run
    assert isinstance(run.method, PeftConfig) and run.method.keys[key] == size
    assert run.utilisation == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("given", "ranks"),
    [("", (6, 4)), (",target_r:2", (6, 2)), (",target_r:6", None)],
)
def test_adaloras_first_rank_is_solved_and_its_last_follows(
    given: str, ranks: tuple[int, int] | None, tiny: Compose
) -> None:
    config = f"method.config={{tinit:1{given}}}"
    cfg = tiny(*overrides("ADALORA", "tiny_bert", [TARGETS, config]), f"method.budget={4 * 6 * 65}")
    if ranks is None:
        with pytest.raises(InputError, match=r"meets 1560 .*: config\.init_r = 7 trains 1,820\.\nGive"):
            resolve(cfg)
        return
    run = resolve(cfg).run
    assert isinstance(run.method, PeftConfig) and run.utilisation == 1
    assert (run.method.keys["init_r"], run.method.keys["target_r"]) == ranks


def test_a_budget_that_a_tuner_cannot_meet_names_its_neighbours(tiny: Compose) -> None:
    with pytest.raises(InputError, match=r"no config\.r on q, v meets 100 .*: config\.r = 1 trains 256"):
        resolve(tiny(*overrides("LORA", "tiny_bert", [TARGETS]), "method.budget=100"))
    with pytest.raises(InputError, match=r"the count falls as config\.r grows.*\nGive it itself, as in 'method"):
        resolve(tiny(*overrides("RANDLORA", "tiny_bert", [TARGETS]), "method.budget=400"))
    with pytest.raises(  # w1 of 4 x 4 and w2 of 8 x 8, which is whole from r = 4 on
        InputError, match=r"meets 600 .*: config\.r = 4 trains 320, the most of config\.r up to 64\.\nGive"
    ):
        resolve(tiny(*overrides("LOKR", "tiny_bert", [TARGETS]), "method.budget=600"))
    vera = resolve(tiny(*overrides("VERA", "tiny_bert", [TARGETS]), "method.budget=600")).run
    assert isinstance(vera.method, PeftConfig) and (vera.method.keys["r"], vera.trained_by_method) == (118, 600)
    with pytest.raises(InputError, match=r"has no VEAR\. Did you mean 'VERA'\?\nIt has: .*MISS"):
        resolve(tiny(*overrides("VEAR", "tiny_bert", [TARGETS]), "method.budget=600"))
    with pytest.raises(InputError, match="no key of IA3 is known to change its size"):
        resolve(tiny(*overrides("IA3", "tiny_bert", [TARGETS]), "method.budget=100"))


def test_a_single_key_of_a_tuner_is_told_how_to_give_it() -> None:
    assert unknown_key("method.config.r", []) == (
        "method.config.r: keys of a tuner are given all at once.\nExample: 'method.config={r:VALUE}'"
    )


def test_every_type_that_is_tried_has_settings() -> None:
    assert {*CASES} <= {*TYPES}
