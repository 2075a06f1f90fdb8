"""What PEFT's settings of a LoRA adapter say beside its scale: how the factors were drawn, and what B A is not."""

from collections.abc import Sequence

from analysis.adapters.beside import METHODS
from analysis.foreign_text import first_names
from lora_repro.errors import InputError, shown
from lora_repro.methods.lora.peft_settings import MORE_THAN_BA, PeftLoRA, other_settings

_STARTS_IN_W0 = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of A and B that take their place out of W_0: what is in B A is not only learned."""

_NOT_DRAWN = {
    "eva": "B started at zero, A in the leading directions of its inputs (Paischer et al. 2024): two such adapters "
    "share directions of A before any training.",
    "mica": "A started at zero, B in the weakest directions of W_0, where it stays: two such adapters of one base "
    "have the same B.",
}
"""Starts at which B A is zero, and a factor is not drawn at random (peft/tuners/lora/layer.py and eva.py)."""

_READ = ("LORA", "ADALORA", "LOHA", "LOKR")


def refuse_other_kind(kind: str, where: str) -> None:
    """Refuses PEFT's methods whose update is not read here.

    Raises:
        InputError: Naming the method.
    """
    if kind not in _READ:
        what = METHODS[kind][1] if kind in METHODS else "whose update is not known here"
        raise InputError(f"{where}: the adapter is PEFT's {shown(kind)}: {what}.\nGive a LoRA adapter.")


def scaling(config: PeftLoRA, module: str, r: int) -> float:
    """Returns the scale of a module's update.

    Args:
        config: The settings.
        module: The module's name, without PEFT's prefix.
        r: What the shapes of its factors say: the rows of lora_A.

    Raises:
        InputError: If the settings say another r: then nobody knows the scale.
    """
    if config.kind == "ADALORA":  # peft/tuners/adalora/layer.py: by r at the start, with a summand against 0 / 0
        return (config.alpha if config.alpha > 0 else config.r) / (config.r + 1e-5)
    said = config.rank(module)
    if said != r:
        raise InputError(
            f"{config.source}: says r = {said:g} for {shown(module)}, whose factors have r = {r}.\n"
            "Give the configuration that belongs to the weights: its alpha / r is the scale."
        )
    return config.scaling(module)


def start_variance(config: PeftLoRA, r: int, d_in: int) -> float | None:
    """Returns the variance of A_0's entries; None where they were not drawn one by one.

    Source: peft/tuners/lora/layer.py, reset_lora_parameters; tuners/adalora/layer.py.
    """
    if config.kind == "ADALORA":
        return 0.02**2
    start = config.given.get("init_lora_weights")
    if start is True:
        return 1 / (3 * d_in)  # kaiming_uniform_(a=sqrt(5))
    return 1 / r**2 if start == "gaussian" else None


def notes_on(config: PeftLoRA, modules: Sequence[str]) -> list[str]:
    """Says what B A is not, and what the settings leave open."""
    given = config.given.get("init_lora_weights")
    start = "false" if given is False else str(given)
    notes = config.doubts(modules)
    if given is False or start.startswith(_STARTS_IN_W0):  # with false both factors are drawn
        notes.append(
            f"init_lora_weights={shown(start)}: B A did not start at zero, so it is not only what was learned."
        )
    elif start in _NOT_DRAWN:
        notes.append(f"init_lora_weights={start}: {_NOT_DRAWN[start]}")
    if config.given.get("kasa_config"):
        notes.append(
            "kasa_config: the update is B diag A. KaSA also takes the r weakest directions out of W_0, which is not "
            "counted here."
        )
    if config.given.get("alora_invocation_tokens"):
        notes.append("alora_invocation_tokens: the update acts only on what follows these tokens in the input.")
    unknown = other_settings(config.given).keys() - MORE_THAN_BA.keys() - {"enable_lora"}
    if config.kind == "LORA" and unknown:
        notes.append(f"{first_names(sorted(unknown))}: not known here; it may change what the adapter computes.")
    return notes
