"""Loads a backbone with the head of its task, or a language model; freezes all but the head; checks the shapes."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
)
from transformers import logging as transformers_logging
from transformers.activations import ACT2FN

from lora_repro import draw
from lora_repro.config.schema import Run
from lora_repro.errors import InputError, MissingInputError
from lora_repro.models import labels
from lora_repro.models.arch import Arch, is_counted
from lora_repro.models.declared import only, read_config, reading, weight_names
from lora_repro.models.dropouts import set_dropout, set_head_dropout
from lora_repro.models.fused import fuse
from lora_repro.models.initial import Normal, draw_weight, normals_of, recorded_normals
from lora_repro.models.inputs import folder_of, sha256_of_bytes
from lora_repro.models.json_files import read_keys
from lora_repro.models.meta import Unreadable, class_for
from lora_repro.models.pickled import refuse_more_than_tensors
from lora_repro.models.pooling import ONE_POSITION, read_first_position, read_last_token
from lora_repro.models.precision import Products, products_of
from lora_repro.models.probe import refuse_other_scores
from lora_repro.models.shared import Shared
from lora_repro.models.weights import weight_files

ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function")
INITIALIZER_RANGE = 0.02
"""The deviation of a matrix that its class draws from no normal distribution, if there is no initializer_range."""
EAGER_UP_TO = 256
"""Tokens up to which attention in plain products beats the fused kernel on CPUs (1.9 times at 32 tokens)."""
SHARED_UP_TO = 5 * 10**8
"""Weights up to which a model stays in memory for the next runs; a larger one is read again."""
KEPT = 2
"""Models that stay in memory: of a sweep over two tasks or two dropouts both do."""

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """A model before anything is attached."""

    model: nn.Module
    drawn: frozenset[str]
    """The head's parameters that the checkpoint does not hold."""
    shared: Shared | None
    """What owns the memory of its parameters; None where they are the model's own."""


def load_model(run: Run, model_path: str | None, cache_dir: str, device: torch.device) -> nn.Module:
    """Loads a run's model as `load` does, with all weights its own."""
    model, _, shared = load(run, model_path, cache_dir, device)
    if shared is not None:
        shared.own(model.parameters())
    return model


def load(run: Run, model_path: str | None, cache_dir: str, device: torch.device) -> Loaded:
    """Loads a run's model in fp32 into the host's memory, every weight frozen but the head's.

    The head is the one of transformers' AutoModelForSequenceClassification, or none in a language model. What is
    missing in the checkpoint is drawn from (seed, name, shape) with the distribution that its class in transformers
    asks for (N(0, initializer_range) where that is none around 0), so it starts alike for all methods and ranks.

    The runs of a process share what is read: nobody may write to a parameter before `shared.own` has copied it.

    Raises:
        MissingInputError: If weights are missing, damaged, or not of the shapes in conf/model.
    """
    folder = folder_of(run.model, model_path, cache_dir)
    if folder is None:
        return _load(run, "", device)
    with reading(f"the model in {folder}"):
        return _load(run, str(folder), device)


def _load(run: Run, folder: str, device: torch.device) -> Loaded:
    arch = run.arch
    key = _Key(
        folder,
        json.dumps(run.model.config, sort_keys=True),
        run.model.digest,
        run.model.dropout,
        run.model.head_dropout,
        run.task.head_width,
        "eager" if is_eager(run, device) else "sdpa",
    )
    is_shared = arch.size() <= SHARED_UP_TO
    (template, missing, misfits, normals), shared = _kept(key) if is_shared else (_template(*key), None)
    _check_shapes(template, arch, run.model.name)
    if absent := sorted(name for name in missing if not arch.is_head(name)):
        raise MissingInputError(
            f"model={run.model.name}: {len(absent)} of the backbone's tensors are not in the weights, or not in this "
            f"shape. First: {absent[0]}.\nGive weights that belong to the config.json beside them."
        )
    model: Any = template if shared is None else shared.lend()
    other = Normal(getattr(model.config, "initializer_range", INITIALIZER_RANGE))
    for name, parameter in model.named_parameters():
        if name in missing:
            parameter.data = draw_weight(run.seed, name, tuple(parameter.shape), normals.get(name, other))
    if run.model.name == "local":
        _align_labels(model, run, missing, misfits)
    _prepare(model, arch)
    if arch.reading is not None:
        log.info("model=%s: %s", run.model.name, arch.reading.describe())
        refuse_other_scores(model, run)
    return Loaded(model, missing, shared)


class _Key(NamedTuple):
    """What decides which weights are read, and how they are computed with."""

    folder: str
    config_json: str
    digest: str
    dropout: float
    head_dropout: float | None
    head_width: int | None
    attention: str


_all_kept: dict[_Key, tuple["_Template", Shared]] = {}
"""The models that stay in memory, the one that was asked for last at the end."""


def _kept(key: _Key) -> tuple["_Template", Shared]:
    """Returns a model that stays in memory, read if it is not there, or if somebody has written to it."""
    found = _all_kept.pop(key, None)
    if found is not None and (changed := found[1].changed()):
        log.warning(
            "Frozen weights in memory were changed since they were read (%s, %d in all): they are read again.",
            changed[0], len(changed),
        )  # fmt: skip
        found = None
    if found is None:
        for oldest in [*_all_kept][: len(_all_kept) + 1 - KEPT]:
            del _all_kept[oldest]
        template = _template(*key)
        found = template, Shared(template.model)
    for _, other in _all_kept.values():
        other.keep_in_bf16({})
    _all_kept[key] = found
    return found


def _prepare(model: PreTrainedModel, arch: Arch) -> None:
    """Freezes every weight but the head's, and lets the model compute only the position that the head reads."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(arch.is_head(name))
    fuse(model)
    if arch.model_type in ONE_POSITION:
        read_first_position(model)
    if arch.is_decoder and arch.head_modules:
        read_last_token(model)


def without_weights(
    keys: Mapping[str, Any], arch: Arch, head_width: int | None, dropout: float, attention: str
) -> nn.Module:
    """Builds a model as `load` does, with the weights that its class begins with, to learn its sizes.

    Args:
        keys: The keys of its config.json.
        arch: Its shapes.
        head_width: Width of the head's output; None of a language model.
        dropout: Dropout of the backbone.
        attention: "eager" or "sdpa" (where transformers has it).
    """
    auto, config, attention = _configure("", keys, dropout, head_width, attention)
    model = auto.from_config(config, attn_implementation=attention)
    _prepare(model, arch)
    return model


def _align_labels(model: nn.Module, run: Run, missing: Collection[str], misfits: Collection[str]) -> None:
    """Puts the outputs of a head that was trained before into the order of the task's labels, by their names."""
    output = run.arch.output
    if output is not None and f"{output}.weight" not in missing:
        put_labels_in_order(model, run, "model=local")
    elif output is not None and f"{output}.weight" in misfits:
        log.warning(
            "model=local: the head in the weights is not as wide as task %s needs (%d outputs), so a new one is drawn.",
            run.task.name, run.task.head_width,
        )  # fmt: skip


def label_order(run: Run) -> list[int] | None:
    """Returns for each label of the task its output in a head of the base's order; None if unknown."""
    found = _labels_of_base(run)
    return None if found is None else labels.order(found, run.task.label_names)


def put_labels_in_order(model: nn.Module, run: Run, whose: str) -> None:
    """Puts the outputs of a head whose labels are called as in the base's config.json into the task's order.

    Args:
        model: The model with that head, in place.
        run: Its run.
        whose: Where the head comes from, for the message.
    """
    output, names = run.arch.output, run.task.label_names
    if output is None or not names:
        return
    found, order = _labels_of_base(run), label_order(run)
    said = "none" if found is None else ", ".join(found)
    if not labels.are_named(found, names):
        log.warning(
            "%s: config.json names the labels %s and the task %s. They cannot be matched by name, so %s. "
            "If that is wrong, correct id2label in config.json.",
            whose, said, ", ".join(names), ", ".join(
                f"output {index} is taken as {name}"
                for index, name in zip(order if order is not None else range(len(names)), names, strict=True)
            ),
        )  # fmt: skip
    if order is not None and order != sorted(order):
        log.info("%s: the head's labels are %s; put into the task's order.", whose, said)
        reorder_outputs(model, output, order)


def reorder_outputs(model: nn.Module, output: str, order: Sequence[int]) -> None:
    """Puts the outputs of a head into another order, in place.

    Args:
        model: The model with the head.
        output: The module that has a row for each output.
        order: Which output stands at each place from now on.
    """
    for parameter in model.get_submodule(output).parameters():
        parameter.data = parameter.data[list(order)]


def _labels_of_base(run: Run) -> list[str] | None:
    """Returns what the base calls its labels, if it has as many as the task."""
    found = labels.names_in(run.model.config.get("id2label")) if run.task.label_names else None
    return found if found is not None and len(found) == run.task.head_width else None


def is_eager(run: Run, device: torch.device) -> bool:
    """Tells whether attention is plain products, and no fused kernel."""
    return device.type == "cpu" and is_eager_on_cpu(products_of(run.train.dtype, device), run.train.max_length)


def is_eager_on_cpu(products: Products, max_length: int) -> bool:
    """Tells whether CPUs that compute products so compute attention of these inputs without the fused kernel."""
    return products is Products.rounded or max_length <= EAGER_UP_TO


class _Template(NamedTuple):
    model: PreTrainedModel
    missing: frozenset[str]
    """The parameters that the checkpoint does not hold."""
    misfits: frozenset[str]
    """Those of them that it holds in another shape."""
    normals: Mapping[str, Normal]
    """What the model's class draws those of them from that are matrices."""


@torch.inference_mode(False)
def _template(
    folder: str,
    config_json: str,
    digest: str,
    dropout: float,
    head_dropout: float | None,
    head_width: int | None,
    attention: str,
) -> _Template:
    """Reads the weights."""
    found = _read(folder, config_json, digest, dropout, head_width, attention)
    if head_dropout is not None:
        set_head_dropout(found.model, head_dropout)
    return found


def _read(
    folder: str, config_json: str, digest: str, dropout: float, head_width: int | None, attention: str
) -> _Template:
    keys = json.loads(config_json)
    if folder:
        _check_config(Path(folder) / "config.json", keys)
    auto, config, attention = _configure(folder, keys, dropout, head_width, attention)
    if folder:
        return _from_folder(Path(folder), auto, config, attention)
    with recorded_normals() as normals:
        model = auto.from_config(config, attn_implementation=attention)
    missing = frozenset(n for n, _ in model.named_parameters() if n.startswith(("classifier.", "score.")))
    for name, parameter in model.named_parameters():
        if name not in missing and parameter.dim() > 1:
            parameter.data = torch.from_numpy(draw.random_weight(name, tuple(parameter.shape)))
    if (found := random_digest(model, missing)) != digest:
        raise MissingInputError(
            f"The random weights drawn here have digest {found}, not {digest}.\n"
            "Set it as the model's digest if its shapes were changed on purpose."
        )
    return _Template(model, missing, frozenset(), normals_of(model, missing, normals))


def _configure(
    folder: str, keys: Mapping[str, Any], dropout: float, head_width: int | None, attention: str
) -> tuple[Any, PretrainedConfig, str]:
    """Returns transformers' loader, the configuration of the model to be loaded, and the attention that it has."""
    config = read_config(Path(folder) / "config.json", keys)
    config.output_hidden_states = config.output_attentions = False  # nothing here reads them
    config.chunk_size_feed_forward, config.return_dict = 0, True  # neither changes a number
    set_dropout(config, dropout, is_counted(keys))
    try:
        auto = class_for(config, head_width)
    except Unreadable as error:
        raise InputError(f"model: {config.model_type}: {error}") from None
    return auto, config, attention if auto._model_mapping[type(config)]._supports_sdpa else "eager"


def _from_folder(folder: Path, auto: Any, config: PretrainedConfig, attention: str) -> _Template:
    """Reads a model's weights from its folder, and no other file there."""
    activation = next((getattr(config, key) for key in ACTIVATIONS if hasattr(config, key)), None)
    if is_counted(config.to_dict()) and activation not in ACT2FN:
        raise MissingInputError(
            f"{folder}/config.json: hidden_act {activation!r} is no activation of transformers.\n"
            "Give the config.json that belongs to the weights."
        )
    files = weight_files(folder)
    kinds = refuse_more_than_tensors(files)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # its report of the missing head: the head is ours to draw
    transformers_logging.disable_progress_bar()
    try:
        with (
            reading(f"the model in {folder}"),
            only(folder, weight_names(folder), {"model_type": config.model_type}) as alone,
            recorded_normals() as normals,
        ):
            model, info = auto.from_pretrained(
                alone,
                config=config,
                attn_implementation=attention,
                dtype=torch.float32,
                weights_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise MissingInputError(f"{files[0]} is damaged ({error}).\nCopy or download it again.") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    for name, parameter in model.named_parameters():
        if (kind := _stored_as(name, kinds)) is not None:
            raise MissingInputError(
                f"{files[0]}: {name} is stored as {kind}, which is no plain number: these weights are quantised.\n"
                "Give weights in fp32, fp16 or bf16: model.dequantize() of transformers, then save_pretrained."
            )
        if not parameter.isfinite().all():
            raise MissingInputError(
                f"{files[0]}: {name} holds values that are not finite.\nGive weights that did not diverge."
            )
    misfits = frozenset(entry[0] for entry in info["mismatched_keys"])
    missing = frozenset(info["missing_keys"]) | misfits
    return _Template(model, missing, misfits, normals_of(model, missing, normals))


def _stored_as(parameter: str, kinds: Mapping[str, str]) -> str | None:
    """Returns in which kind of number a parameter is stored, if in none that is plain; its prefix may be left out."""
    return next((kind for name, kind in kinds.items() if f".{parameter}".endswith(f".{name}")), None)


def random_digest(model: nn.Module, missing: frozenset[str]) -> str:
    """Returns the sha256 over the names and fp32 bytes of a random model's weights, the head apart."""
    parts = [
        name.encode() + parameter.detach().numpy().tobytes()
        for name, parameter in model.named_parameters()
        if name not in missing
    ]
    return sha256_of_bytes(b"".join(parts))


def _check_config(path: Path, declared: Mapping[str, Any]) -> None:
    """Holds the config.json beside the weights against conf/model: heads and activation leave no mark in shapes."""
    found = read_keys(path)
    for key, value in declared.items():
        if found.get(key, value) != value:
            raise MissingInputError(
                f"{path}: {key} is {found[key]}, but {value} in conf/model.\n"
                "Give the folder of this model, or take it as your own: model=local paths.model=DIR"
            )


def _check_shapes(model: nn.Module, arch: Arch, name: str) -> None:
    if wrong := arch.misfits({key: tuple(parameter.shape) for key, parameter in model.named_parameters()}):
        raise MissingInputError(
            f"model={name}: {len(wrong)} weights do not have the shape of its configuration. First: "
            f"{wrong[0]}.\n"
            f"Fetch the weights again (python -m lora_repro.fetch {name}) or correct conf/model/{name}.yaml."
        )
