"""The base of an adapter, as far as it is given: which module is which matrix, and the weights W_0."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from analysis.adapters.names import may_be_conv1d
from analysis.adapters.tensors import Tensors, open_folder, open_tensors
from lora_repro.config.catalogue import group_names
from lora_repro.config.schema import load_group
from lora_repro.draw import random_weight
from lora_repro.errors import InputError, MissingInputError, did_you_mean, shown
from lora_repro.models.arch import Arch, ModelConfig, Site, Source, arch_of, is_counted
from lora_repro.models.architecture import read_blueprint
from lora_repro.models.inputs import default_cache, find_model

_LABELS = 2
"""Number of labels of a classifier, without effect here: an encoder has no Arch without one."""


@dataclass
class Backbone:
    """A base model; empty where none is given."""

    arch: Arch | None = None
    open_weights: Callable[[], Tensors] | None = None
    """Finds W_0; None where only shapes are given."""
    model: ModelConfig | None = None
    """The model of conf/model that it is, where it is one."""
    _by_module: dict[str, list[Site]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Sorts the sites by module."""
        for site in self.arch.sites if self.arch is not None else ():
            self._by_module.setdefault(site.module, []).append(site)

    @cached_property
    def weights(self) -> Tensors | None:
        """The weights W_0, opened when they are first asked for.

        Raises:
            MissingInputError: If the model is known, and its weights are not on this machine.
        """
        return self.open_weights() if self.open_weights is not None else None

    def sites(self, module: str) -> list[Site]:
        """Returns the matrices of a module; its name may lack the model's first name, or have more in front."""
        for name in _without_first_names(module):
            if name in self._by_module:
                return self._by_module[name]
        inside = self._endings_of_modules.get(module)
        return self._by_module[inside] if inside is not None else []

    @cached_property
    def _endings_of_modules(self) -> dict[str, str | None]:
        return _endings(self._by_module)

    @cached_property
    def _endings_of_weights(self) -> dict[str, str | None]:
        return _endings(self.weights.shapes) if self.weights is not None else {}

    @cached_property
    def has_conv1d(self) -> bool | None:
        """Whether layers of GPT-2's names store W transposed, by one that is not square; None where none shows it."""
        shapes = self.weights.shapes if self.weights is not None else {}
        for name in shapes:
            module = name.removesuffix(".weight")
            shape, bias = shapes[name], shapes.get(f"{module}.bias", ())
            if module != name and len(bias) == 1 and len(shape) == 2 and shape[0] != shape[1] and may_be_conv1d(module):
                return shape[1] == bias[0]
        return None

    def find_weight(self, name: str) -> str | None:
        """Returns the name of a tensor in the base, whose names may have more, or less, in front.

        `bert.encoder...` in a classifier is `encoder...` in the bare model.
        """
        if self.weights is None:
            return None
        for shorter in _without_first_names(name):
            if shorter in self.weights.shapes:
                return shorter
        return self._endings_of_weights.get(name)

    def module_of(self, module: str) -> str:
        """Returns what the base calls a module; see `Replicated`."""
        return module


def _without_first_names(name: str) -> Iterator[str]:
    """Yields a.b.c.d, b.c.d, c.d: never the last name alone, which says too little."""
    parts = name.split(".")
    for start in range(max(1, len(parts) - 1)):
        yield ".".join(parts[start:])


def _endings(names: Iterable[str]) -> dict[str, str | None]:
    """Maps each suffix of a dotted name to the full name, or to None if several names end with it."""
    found: dict[str, str | None] = {}
    for name in names:
        rest = name
        while "." in rest:
            rest = rest.partition(".")[2]
            found[rest] = None if rest in found else name
    return found


def open_backbone(given: str | None) -> Backbone:
    """Opens what --base names: a model of conf/model, a folder as transformers saves it, or a file of weights.

    Raises:
        MissingInputError: If there is nothing of that name.
        InputError: If its config.json is impossible.
    """
    if given is None:
        return Backbone()
    path = Path(given).expanduser()
    if path.is_file():
        weights = open_tensors(path)
        return Backbone(open_weights=lambda: weights)
    if path.is_dir():
        arch = arch_in(path)
        weights = open_folder(path)
        if weights is None and not (path / "config.json").is_file():
            raise MissingInputError(
                f"--base: {path} holds neither a config.json nor weights.\n"
                "Give a folder as transformers' save_pretrained writes it."
            )
        return Backbone(arch, None if weights is None else lambda: weights)
    names = [name for name in group_names("model") if name != "local"]
    if given not in names:
        raise MissingInputError(
            f"--base: no folder, file or model {given!r}.{did_you_mean(given, names)}\n"
            f"Give a folder as transformers saves it, a file of weights, or a model here: {', '.join(names)}."
        )
    return backbone_of(load_group("model", given))


def model_named(name: object) -> ModelConfig | None:
    """Returns the model here that an adapter's configuration names, by our name or the hub's.

    The name is compared and nothing else: it never becomes a path.
    """
    if not isinstance(name, str):
        return None
    return next((config for config in _models() if name in (config.name, config.hub)), None)


@cache
def _models() -> list[ModelConfig]:
    return [load_group("model", choice) for choice in group_names("model") if choice != "local"]


def arch_named(name: object) -> Arch | None:
    """Returns the shapes of the model here that an adapter's configuration names; see `model_named`."""
    config = model_named(name)
    return None if config is None else _arch(config)


def refuse_other_base(backbone: Backbone, named: ModelConfig | None, whose: str) -> None:
    """Refuses a model here as the base of an adapter of another model here; see `base_doubt` for those elsewhere.

    Raises:
        InputError: Naming the two.
    """
    if backbone.model is not None and named is not None and backbone.model.name != named.name:
        raise InputError(
            f"--base {backbone.model.name}: {whose} adapts {named.name}.\nGive --base {named.name}, or leave it out."
        )


def base_doubt(backbone: Backbone, named: object) -> list[str]:
    """Says where an adapter names a base that is not known here, and a model of another name was given."""
    if backbone.model is None or not isinstance(named, str) or not named or model_named(named) is not None:
        return []
    return [
        f"Names {shown(named)} as its base, and --base is {backbone.model.name}: relative norms mean something only if "
        "these are the same weights."
    ]


def backbone_of(config: ModelConfig) -> Backbone:
    """Returns the base of a run, or of a model of conf/model."""
    return Backbone(_arch(config), partial(_weights_of, config), config)


def _weights_of(config: ModelConfig) -> Tensors:
    if config.source is Source.random:
        arch = config.arch(_LABELS)
        shapes = {name: shape for name, shape in arch.parameters.items() if len(shape) > 1 and not arch.is_head(name)}
        readers = {name: partial(random_weight, name, shape) for name, shape in shapes.items()}
        return Tensors(Path(config.name), shapes, readers, {})
    if config.name == "local":
        raise MissingInputError(
            "The run is of model=local, and no record holds the folder of its weights.\nGive it: --base DIR"
        )
    weights = open_folder(find_model(config, None, default_cache()))
    assert weights is not None, "find_model returns folders with weights"
    return weights


def arch_in(folder: Path) -> Arch | None:
    """Returns the shapes of a folder's model; None where it has no config.json, or its matrices cannot be found.

    Raises:
        MissingInputError: If it is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = dict(json.loads(path.read_bytes()))
        return arch_of(config, _LABELS) if is_counted(config) else _read_arch(folder, config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise MissingInputError(f"{path}: is damaged ({error}).\nCopy or download it again.") from None


def _read_arch(folder: Path, config: Mapping[str, Any]) -> Arch | None:
    """Returns the shapes that are read from a folder with weights, as a classifier or else as a language model."""
    for labels in (_LABELS, None):
        try:
            blueprint = read_blueprint(folder, config, labels)
        except InputError:  # no such class, or no weights: the names of the adapter's tensors must do
            continue
        return ModelConfig("local", config=dict(config), blueprint=blueprint).arch(labels)
    return None


def _arch(config: ModelConfig) -> Arch | None:
    """Returns the shapes of a model of conf/model or of a run; None where they are not known, and names must do."""
    return config.arch(_LABELS) if config.blueprint or is_counted(config.config) else None
