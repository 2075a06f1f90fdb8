"""LoRA on a model of one's own, without configuration files, store or command line: docs/library.md shows it.

What is attached, drawn, counted and written is what a run has: the same layers, starts, names and files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import nn
from transformers import PreTrainedModel

from lora_repro.errors import InputError, MissingInputError
from lora_repro.methods import Count, LoRAConfig
from lora_repro.methods.lora import Bias, Init
from lora_repro.methods.lora.layers import LoRAEmbedding, LoRALinear, merge
from lora_repro.models.arch import Arch, arch_of, is_counted
from lora_repro.models.meta import Unreadable, blueprint_of
from lora_repro.store.adapter import fill, write_adapter

E = TypeVar("E", Init, Bias)

_KINDS = (
    "Give a model of transformers' AutoModelForSequenceClassification or AutoModelForCausalLM, as from_pretrained "
    "returns it."
)


@dataclass
class Adapted:
    """A model with LoRA on it."""

    model: PreTrainedModel
    """The model that was given; its class and its calls stay as they are."""
    method: LoRAConfig
    arch: Arch
    """Every parameter's name and shape before LoRA was attached, and where each matrix lies."""

    @property
    def count(self) -> Count:
        """How many weights are trained: `count.method` by LoRA, `count.head` by the classification head."""
        return self.method.count(self.arch)

    def parameters(self) -> list[nn.Parameter]:
        """Returns what is trained, for an optimizer."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def save(self, folder: str | Path) -> None:
        """Writes a folder that PEFT opens on the same base, the classification head in it.

        Args:
            folder: Is made if it is not there; an adapter in it is written over.

        Raises:
            InputError: If LoRA was merged.
        """
        self._refuse_merged()
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_adapter(self.model, self.arch, self.method, Path(folder), _hub_name(self.model))

    def load(self, folder: str | Path) -> None:
        """Fills in what `save`, or PEFT, has written for this base, in place.

        A part of the classification head that the folder does not hold stays as it is, as in PEFT.

        Raises:
            MissingInputError: If files are missing or damaged.
            InputError: If it is of other matrices, another rank or scale, or belongs to another base; or if LoRA was
                merged.
        """
        self._refuse_merged()
        if not Path(folder).is_dir():
            raise MissingInputError(f"{folder}: there is no such folder.\nGive one that PEFT's save_pretrained wrote.")
        fill(self.model, self.arch, self.method, Path(folder), drawn=(), is_trained=False)

    def merge(self) -> PreTrainedModel:
        """Folds LoRA into the weights, W_0 + s B A, in place, and returns the model: a plain one, without LoRA.

        The weights stay frozen as they were: `requires_grad_` unfreezes them.

        Raises:
            InputError: If LoRA was merged before.
        """
        self._refuse_merged()
        merge(self.model)
        return self.model

    def _refuse_merged(self) -> None:
        if not _lora_layers(self.model):
            raise InputError("The model holds no LoRA any more: it was merged.\nSave or load before merge().")


def attach_lora(
    model: PreTrainedModel,
    targets: Sequence[str],
    r: int,
    alpha: int | float,
    *,
    dropout: float = 0.0,
    r_pattern: dict[str, int] | None = None,
    init: str = "kaiming",
    rslora: bool = False,
    freeze_A: bool = False,
    bias: str = "none",
    layers: Sequence[int] | str | None = None,
    seed: int = 0,
    sites: Mapping[str, str] | None = None,
) -> Adapted:
    """Puts LoRA on a model, in place, and freezes all else but the classification head.

    Each update lies on the device of its matrix and is in the mode, training or not, that the matrix's layer is in. One
    of a weight on the meta device holds no numbers either: it can be counted, not trained.

    Args:
        model: A classifier or a language model of transformers, in fp32.
        targets: The matrices: of q, k, v, o, up, down, gate and embed those that the model has. ["q", "v"] or "qv".
        r: The rank.
        alpha: The update is (alpha / r) B A.
        dropout: On the input of A, while the model is in training mode.
        r_pattern: Other ranks by matrix, layer or both: {"v": 16, "layers.0": 2, "layers.5.q": 4}.
        init: How A starts: "kaiming" as in the authors' code, or "gaussian". B starts at zero.
        rslora: Scale by alpha / sqrt(r).
        freeze_A: Train B alone.
        bias: Which biases are trained too: "none", "lora_only" (of the adapted layers) or "all".
        layers: The layers whose matrices are adapted, counted from 0: [0, 1, 2] or "4-11"; None: all.
        seed: What A is drawn from, with the name and the shape of each matrix.
        sites: Where a matrix is, if the names of the modules do not tell: {"q": "layers.*.attn.q"}, as model.sites.

    Raises:
        InputError: If the model is of a kind that is not known, has LoRA already, or a value is impossible.
    """
    arch = _arch(model, sites)
    method = LoRAConfig(
        name="lora",
        targets=list(targets),
        r=r,
        alpha=float(alpha),
        dropout=dropout,
        r_pattern=r_pattern,
        init=_choice(Init, "init", init),
        rslora=rslora,
        freeze_A=freeze_A,
        bias=_choice(Bias, "bias", bias),
        layers=layers if layers is None or isinstance(layers, str) else list(layers),
    )
    method.check(arch)
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(arch.is_head(name))
    method.attach(model, arch, seed)
    for layer in _lora_layers(model):
        layer.train(layer.base.training)  # new modules are in training mode, and from_pretrained gives one that is not
        layer.updates.to(layer.base.weight.device)  # the parts of one model may lie on several devices
    return Adapted(model, method, arch)


def _lora_layers(model: nn.Module) -> list[LoRALinear | LoRAEmbedding]:
    return [module for module in model.modules() if isinstance(module, LoRALinear | LoRAEmbedding)]


def _arch(model: PreTrainedModel, sites: Mapping[str, str] | None) -> Arch:
    """Returns the shapes of a model, held against its own parameters."""
    name = type(model).__name__
    if _lora_layers(model):
        raise InputError(f"{name}: has LoRA already.\nLoad the model anew, or merge what it has.")
    is_classifier = name.endswith("ForSequenceClassification")
    if not is_classifier and not name.endswith(("ForCausalLM", "LMHeadModel")):
        raise InputError(f"{name}: neither a classifier of texts nor a language model.\n{_KINDS}")
    config, num_labels = model.config.to_dict(), model.config.num_labels if is_classifier else None
    if is_counted(config):
        arch = arch_of(config, num_labels)
    else:
        try:
            arch = blueprint_of(model, num_labels).arch(str(config["model_type"]), num_labels, dict(sites or {}))
        except Unreadable as error:
            raise InputError(f"{name}: {error}\n{_KINDS}") from None
    if wrong := arch.misfits({name: tuple(parameter.shape) for name, parameter in model.named_parameters()}):
        raise InputError(f"{name}: {wrong[0]} in a model of type {arch.model_type}.\n{_KINDS}")
    if other := {str(p.dtype) for p in model.parameters()} - {"torch.float32"}:
        raise InputError(
            f"{name}: its weights are stored as {', '.join(sorted(other))}, and LoRA's in fp32.\n"
            "Load it with dtype=torch.float32; products in bf16 come from torch.autocast."
        )
    return arch


def _choice(kind: type[E], key: str, given: str) -> E:
    try:
        return kind(given)
    except ValueError:
        choices = ", ".join(choice.value for choice in kind)
        raise InputError(f"{key}: must be one of {choices} (given: {given}).") from None


def _hub_name(model: PreTrainedModel) -> str | None:
    """Returns what the base is called on the hub, as far as it is known; never a path of this machine."""
    name = model.config.name_or_path
    return name if name and not Path(name).exists() and not Path(name).is_absolute() else None
