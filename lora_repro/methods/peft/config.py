"""A tuner of PEFT as a method: what is given, what is refused, and what is counted. No torch, no PEFT."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from lora_repro.errors import InputError, did_you_mean
from lora_repro.methods.base import Count, SizedConfig
from lora_repro.methods.chosen_layers import (
    in_order,
    of_layers,
    read_layers,
    refuse_embed_in_layers,
    refuse_other_layers,
    without_all,
)
from lora_repro.methods.peft import annotations, declared
from lora_repro.methods.peft.not_offered import (
    BY_SHORT_NAMES,
    FOLLOWS,
    IDLE_IN_ADALORA,
    NOT_HERE,
    REFUSED,
    STARTS_REFUSED,
    SUCCESSORS,
    UNEVEN,
    refuse_idle_patterns,
)
from lora_repro.models.arch import Arch, Site
from lora_repro.store.layout import ADAPTER

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lora_repro.store.tensors import Saved

VERA_LARGEST = 2**14
"""The largest r of VeRA that is looked for: its matrices of this rank are frozen, shared and bound by no width."""

SIZES = ("init_r", "r", "n_frequency", "num_virtual_tokens")
"""Keys with which the count of a tuner grows, the first that it has."""

TARGET_OF_INIT = 8 / 12
"""AdaLoRA's target_r over its init_r, where init_r follows from a budget and target_r is not given: PEFT's defaults."""


@dataclass
class PeftConfig(SizedConfig):
    """What a tuner of PEFT trains, given by its own configuration."""

    folder: ClassVar[str] = ADAPTER
    has_label_order_of_base: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("peft",)
    why_not_merged: ClassVar[str | None] = (
        "PEFT merges its own tuners: PeftModel.from_pretrained(...).merge_and_unload()"
    )

    peft_type: str = MISSING
    """A peft_type of the installed PEFT: LORA, VERA, ADALORA, IA3, LN_TUNING, OFT ..."""
    config: Any = None
    """Keys and values of the tuner's own configuration. The others are PEFT's defaults, which are in the record's
    provenance."""
    targets: list[str] | None = None
    """The matrices by the paper's letters, as for LoRA, in the place of PEFT's target_modules; None: PEFT's own."""
    layers: Any = None
    """The layers of `targets`, as for LoRA."""

    def __post_init__(self) -> None:
        """Orders targets and layers, so that two spellings are one configuration."""
        self.run_steps: int | None = None
        self.peft_type = self.peft_type.upper()
        self.layers = read_layers(self.layers)
        self.targets = in_order(self.targets)

    @property
    def label(self) -> str:
        """For example `peft-vera-qv`."""
        return "-".join([self.name, self.peft_type.lower(), *(["".join(self.targets)] if self.targets else [])])

    @property
    def is_judged_by_count(self) -> bool:
        """Much of a tuner's configuration only PEFT's own code can judge."""
        return declared.is_installed()

    @property
    def can_be_compiled(self) -> bool:
        """A tuner is PEFT's code, which is not tried with torch's compiler here."""
        return False

    @property
    def size_key(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The key of the configuration with which the count grows."""
        if self.peft_type in UNEVEN:
            why, example = UNEVEN[self.peft_type]
            raise InputError(
                f"method.budget: the size of {self.peft_type} does not change in equal steps, as {why} (given: "
                f"{self.budget}).\nGive it itself, as in 'method.config={{{example}}}'"
            )
        found = next((key for key in SIZES if key in self.tuner.keys), None)
        if found is None:
            raise InputError(
                f"method.budget: no key of {self.peft_type} is known to change its size in equal steps.\n"
                "Give its own keys: method.config={...}"
            )
        return f"config.{found}"

    def with_size(self, size: int) -> "PeftConfig":
        """Returns the method at another size.

        Raises:
            InputError: If its configuration has a size beside the budget that it follows from.
        """
        key = self.size_key.removeprefix("config.")
        if self.budget is not None and key in self.keys:
            raise InputError(
                f"method.config.{key}: follows from method.budget, and both are given.\nGive one of the two."
            )
        given = {**self.keys, key: size}
        if self.peft_type == "ADALORA":
            given.setdefault("target_r", max(1, round(size * TARGET_OF_INIT)))
        return replace(self, config=given)

    @property
    def size(self) -> int:
        """The value of the key with which the count grows; 0 where there is none, or it is no whole number."""
        found = next((self.given(key) for key in SIZES if key in self.tuner.keys), 0)
        return found if type(found) is int else 0

    @property
    def least(self) -> int:
        """The smallest size; AdaLoRA's init_r is above its target_r."""
        if self.peft_type != "ADALORA":
            return 1
        target = self.keys.get("target_r", 1)
        return target + 1 if type(target) is int else 2

    @property
    def can_be_larger(self) -> bool:
        """A tuner's size may exceed the widest matrix."""
        return True

    def spelt(self, size: int) -> str:
        """Returns how a value of the key is given."""
        return f"'method.config={{{self.size_key.removeprefix('config.')}:{size}}}'"

    @property
    def tuner(self) -> declared.Tuner:
        """The tuner as the installed PEFT declares it.

        Raises:
            InputError: If it has none of this type.
        """
        known = declared.tuners()
        if self.peft_type not in known:
            now = SUCCESSORS.get(self.peft_type)
            raise InputError(
                f"method.peft_type: PEFT {declared.version()} has no {self.peft_type}."
                f"{f' It is {now} there.' if now in known else did_you_mean(self.peft_type, list(known))}\n"
                f"It has: {', '.join(name for name in known if name not in NOT_HERE)}."
            )
        return known[self.peft_type]

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of the tuner's configuration that are given."""
        return self.config if isinstance(self.config, dict) else {}

    def without_start(self) -> "PeftConfig":
        """Returns the method with LoRA's own start, where another is given: they differ in values alone."""
        if self.keys.get("init_lora_weights") in (None, True, False):
            return self
        return replace(self, config={**self.keys, "init_lora_weights": True})

    @property
    def scope(self) -> list[str]:
        """The adapted matrices, where they are named."""
        return self.targets or []

    def largest(self, arch: Arch) -> int:
        """Returns the width of the widest matrix, beyond which no size is looked for; of entries their number."""
        matrices = [site for site in arch.sites if site.layer is not None]
        if self.size_key == "config.n_frequency":
            return min(site.d_in * site.d_out for site in matrices)
        if self.peft_type == "VERA":
            return VERA_LARGEST
        return max(max(site.d_in, site.d_out) for site in matrices)

    @property
    def added_tokens(self) -> int:
        """The virtual tokens of a tuner that has some."""
        given = self.keys.get("num_virtual_tokens")
        return given if type(given) is int and given > 0 else 0

    @property
    def is_prompt(self) -> bool:
        """Whether it trains virtual tokens, and changes no layer."""
        return self.tuner.is_prompt

    @property
    def has_encoder(self) -> bool:
        """Whether its virtual tokens are what a trained network makes of embeddings."""
        return self.peft_type == "P_TUNING"

    def given(self, key: str) -> Any:
        """Returns a key's value: the one that is given, else PEFT's default where that is a plain value."""
        return self.keys.get(key, self.tuner.keys.get(key))

    def check(self, arch: Arch) -> None:
        """Refuses a type or key that the installed PEFT does not have, and what cannot work here.

        What only PEFT's own code can tell is refused by `count`, before anything is loaded. Without PEFT nothing is
        checked: then runs that were computed elsewhere can still be read.
        """
        refuse_other_layers(self.layers, arch.num_layers)
        self.layers = without_all(self.layers, arch.num_layers)
        self._check_targets(arch)
        if not isinstance(self.config, dict | None) or not all(isinstance(key, str) for key in self.keys):
            raise InputError(
                f"method.config: keys and values of the tuner's own configuration (given: {self.config}).\n"
                "Example: 'method.config={r:64}'"
            )
        if declared.is_installed():
            self._check_keys()
            self._check_values()
            if (sites := self.sites_of_targets(arch)) is not None:
                refuse_idle_patterns(self.peft_type, self.keys, list(dict.fromkeys(site.module for site in sites)))

    def _check_keys(self) -> None:
        keys, idle = self.tuner.keys, IDLE_IN_ADALORA if self.peft_type == "ADALORA" else {}
        if (why := NOT_HERE.get(self.peft_type)) is not None:
            raise InputError(f"method.peft_type: {self.peft_type} is not trained here: {why}.\nGive another one.")
        for key, value in self.keys.items():
            if key not in keys:
                offered = [name for name in keys if name not in {*FOLLOWS, *REFUSED, *idle}]
                raise InputError(
                    f"method.config: {self.peft_type} of PEFT {declared.version()} has no {key}."
                    f"{did_you_mean(key, offered)}\nIts keys: {', '.join(offered)}."
                )
            if key in FOLLOWS:
                raise InputError(f"method.config.{key}: is not given: {FOLLOWS[key]}.\nLeave it out.")
            if key in REFUSED and value is not None and value is not False and value not in ({}, []):
                raise InputError(f"method.config.{key}: is not offered here: {REFUSED[key]}.\nLeave it out.")
            if key in idle and (key == "r" or value != keys[key]):
                raise InputError(f"method.config.{key}: AdaLoRA does not read it: {idle[key]}.\nLeave it out.")
        for ours, theirs in (("targets", "target_modules"), ("layers", "layers_to_transform")):
            if getattr(self, ours) is None:
                continue
            if theirs not in keys:
                raise InputError(
                    f"method.{ours}: {self.peft_type} chooses no {'matrices' if ours == 'targets' else 'layers'} by "
                    f"its configuration.\nLeave method.{ours} out."
                )
            if theirs in self.keys:
                raise InputError(f"method.{ours}: says the same as method.config.{theirs}.\nGive one of the two.")
        if self.targets is not None and (key := next((key for key in BY_SHORT_NAMES if key in self.keys), None)):
            raise InputError(
                f"method.config.{key}: PEFT reads it beside short names of modules alone, and method.targets gives "
                "whole ones.\nGive method.layers, or give target_modules in method.config too."
            )

    def _check_values(self) -> None:
        start = str(self.keys.get("init_lora_weights"))
        if (why := next((STARTS_REFUSED[kind] for kind in STARTS_REFUSED if start.startswith(kind)), None)) is not None:
            raise InputError(
                f"method.config.init_lora_weights: {start} is not offered here: {why}.\n"
                "Others: true, gaussian, orthogonal, pissa, olora, eva."
            )
        self._check_eva()
        if self.peft_type == "ADAMSS" and self.given("subspace_rank") != 1:
            raise InputError(
                f"method.config.subspace_rank: must be 1 (given: {self.given('subspace_rank')}). With more, the sizes "
                "of clusters of the weights bound the ranks, so that no count is known before a run.\n"
                "Give more num_subspaces."
            )
        if self.keys.get("target_modules") == "all-linear":
            raise InputError(
                "method.config.target_modules: all-linear means other layers in each class of transformers.\n"
                "Name them: method.targets=[q,k,v,o,up,down]"
            )
        if self.is_prompt and not self.added_tokens:
            raise InputError(
                f"method.config.num_virtual_tokens: {self.peft_type} needs a number of tokens, 1 or more (given: "
                f"{self.keys.get('num_virtual_tokens')}).\nExample: 'method.config={{num_virtual_tokens:8}}'"
            )
        for key, value in self.keys.items():
            if (must := annotations.refused(value, self.tuner.annotations[key])) is not None:
                raise InputError(f"method.config.{key}: must be {must} (given: {value}).")
        if self.peft_type == "ADALORA" and not self.given("target_r") < self.given("init_r"):
            raise InputError(
                f"method.config.target_r: must be below init_r, from which AdaLoRA cuts down to it (given: "
                f"{self.given('target_r')} and {self.given('init_r')}).\n"
                "Example: 'method.config={init_r:12,target_r:8}'"
            )

    @property
    def is_eva(self) -> bool:
        """Whether A starts from the inputs of its layer."""
        return self.keys.get("init_lora_weights") == "eva"

    def _check_eva(self) -> None:
        """Refuses what would make shapes depend on data, and what has no effect or a wrong one."""
        given = self.keys.get("eva_config")
        if not self.is_eva:
            if given is not None:
                raise InputError(
                    "method.config.eva_config: has no effect on another start.\n"
                    "Give init_lora_weights:eva beside it, or leave it out."
                )
            return
        example = "Example: 'method.config={init_lora_weights:eva,eva_config:{rho:1}}'"
        given = given if isinstance(given, dict) else {}
        if given.get("rho") != 1:
            raise InputError(
                f"method.config.eva_config.rho: must be 1 (given: {given.get('rho', 'nothing, and PEFT takes 2')}). "
                f"With more, ranks are handed out by the data, so that no count is known before a run.\n{example}"
            )
        if others := sorted({*given} - {"rho", "tau"}):
            raise InputError(
                f"method.config.eva_config.{others[0]}: is not offered here. Of its keys rho and tau are: all tokens "
                "count that are no padding, ranks stay as they are, and PEFT whitens several times where matrices "
                f"share their input.\n{example}"
            )
        if self.keys.get("rank_pattern"):
            raise InputError(
                "method.config.rank_pattern: PEFT's EVA hands out ranks anew where matrices share their input.\n"
                "Give one r to all, or another start."
            )
        if self.targets is not None and "embed" in self.targets:
            raise InputError("method.targets: PEFT's EVA knows no embedding.\nLeave embed out, or give another start.")

    def _check_targets(self, arch: Arch) -> None:
        if self.targets is None:
            return
        if not self.targets or len({*self.targets}) < len(self.targets):
            raise InputError(
                f"method.targets: names of matrices, each once (given: {self.targets}). Example: method.targets=[q,v]"
            )
        sites = arch.select(self.targets, key="method.targets")
        refuse_embed_in_layers(self.targets, self.layers)
        for module in {site.module for site in sites if site.part is not None}:
            parts = [site.role for site in arch.sites if site.module == module]
            if absent := [role for role in parts if role not in self.targets]:
                raise InputError(
                    f"method.targets: {module} computes {', '.join(parts)} at once, and PEFT adapts all of it (given "
                    f"without {', '.join(absent)}).\nName them all; method=lora adapts them one by one."
                )

    def check_steps(self, total: int) -> None:
        """Refuses a schedule of AdaLoRA that the run is too short for."""
        self.run_steps = total
        if self.peft_type != "ADALORA":
            return
        tinit, tfinal = self.given("tinit"), self.given("tfinal")
        if tinit + tfinal >= total:
            raise InputError(
                f"method.config: AdaLoRA's tinit and tfinal are {tinit + tfinal} steps, and the run has {total} "
                f"(given: tinit={tinit} and tfinal={tfinal}).\n"
                "Give less, so that there are steps between them to cut ranks."
            )

    def sites_of_targets(self, arch: Arch) -> list[Site] | None:
        """Returns the matrices that `targets` and `layers` name; None if they are PEFT's to choose."""
        return None if self.targets is None else of_layers(arch.select(self.targets), self.layers)

    def count(self, arch: Arch) -> Count:
        """Counts what PEFT trains on a model that has these shapes and no data: this imports torch and PEFT."""
        from lora_repro.methods.peft import prompts, skeleton

        if self.is_prompt:
            return prompts.count(self, arch)
        return skeleton.attached_to_skeleton(self, arch).counted

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Lets PEFT put its tuner on the model."""
        from lora_repro.methods.peft import prompts, tuner

        (prompts if self.is_prompt else tuner).attach(self, model, arch, seed)

    def in_fp32(self, model: "nn.Module") -> "list[nn.Module]":
        """Returns what the tuner has added: what it keeps frozen stays in fp32 beside what it trains."""
        from lora_repro.methods.peft import tuner

        return tuner.added_modules(model)

    def has_no_gradient_at_first(self, parameter: str) -> bool:
        """Tells it of every parameter: which of a tuner's factors stands beside a zero is PEFT's to know."""
        return True

    def before_training(self, model: "nn.Module", losses: "Iterable[Callable[[], Tensor]]") -> None:
        """Computes EVA's start."""
        if self.is_eva:
            from lora_repro.methods.peft import eva

            eva.start(model, losses)

    def penalty(self, model: "nn.Module") -> "Tensor | None":
        """Returns AdaLoRA's term of the loss."""
        from lora_repro.methods.peft import adalora

        return adalora.penalty(model) if self.peft_type == "ADALORA" else None

    def after_step(self, model: "nn.Module", step: int, total: int) -> None:
        """Lets AdaLoRA cut ranks."""
        from lora_repro.methods.peft import adalora

        if self.peft_type == "ADALORA":
            adalora.allocate(model, step, total)

    def state(self, model: "nn.Module") -> "dict[str, Tensor]":
        """Returns what AdaLoRA knows of the importance of its directions."""
        from lora_repro.methods.peft import adalora

        return adalora.state(model) if self.peft_type == "ADALORA" else {}

    def restore(self, model: "nn.Module", tensors: "Mapping[str, Tensor]") -> None:
        """Gives it back to AdaLoRA."""
        from lora_repro.methods.peft import adalora

        if self.peft_type == "ADALORA":
            adalora.restore(model, tensors)

    def provenance(self, arch: Arch) -> dict[str, Any]:
        """Returns PEFT's version and all keys of the tuner, with PEFT's defaults and the modules that it adapts."""
        from lora_repro.methods.peft.files import settings

        return {"peft": {"version": declared.version(), "config": settings(self, arch, None)}}

    def file_names(self, model: "nn.Module", arch: Arch) -> dict[str, str]:
        """Returns PEFT's names of what it saves, and of the head."""
        from lora_repro.methods.peft import prompts, tuner

        if self.is_prompt:
            return prompts.file_names(self, model, arch)
        return tuner.file_names(self, model, arch)

    def write(self, tensors: "Mapping[str, Tensor]", arch: Arch, folder: Path, base: str | None) -> list[Path]:
        """Writes PEFT's layout."""
        from lora_repro.methods.peft.files import write

        return write(tensors, self, arch, folder, base)

    def read(self, arch: Arch, folder: Path) -> "Saved":
        """Reads PEFT's layout."""
        from lora_repro.methods.peft.files import read

        return read(self, arch, folder)
