"""What meets a budget, as a Markdown table or JSON."""

import math
from typing import TYPE_CHECKING, Any

from analysis.budgets import BESIDE_LORA, INFIX, UNEQUAL, Offer, Offers, percent, unequal_widths
from analysis.render import lines
from lora_repro.costs.budget import is_unequal
from lora_repro.methods import SizedConfig
from lora_repro.models.arch import Arch

if TYPE_CHECKING:
    from lora_repro.costs.memory import Batch

_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_HEADER = ["method", "settings", "trained", "of the budget", "would do too"]
_BYTES = ["weights", "gradients", "optimizer", "activations", "training", "checkpoint"]


def to_json(found: Offers, model: str) -> str:
    """Writes a list of objects, one for each offer; bytes, if they were asked for, are whole numbers."""
    return lines.to_json(_entry(offer, found, model) for offer in found.offers)


def _entry(offer: Offer, found: Offers, model: str) -> dict[str, Any]:
    meeting, held = offer.meeting, offer.memory
    memory = {} if held is None else {**held._asdict(), "training": held.training, "on_cpu": held.on_cpu}
    return {
        "model": model,
        "budget": found.budget.given,
        "group": offer.group,
        "method": offer.method.name,
        "settings": offer.settings,
        "sized_by": offer.method.size_key if isinstance(offer.method, SizedConfig) else None,
        "sizes_that_meet": None if meeting is None else [meeting[0], meeting[-1]],
        "ways": offer.ways,
        "trained": offer.trained,
        "utilisation": offer.utilisation,
        "unequal": is_unequal(offer.utilisation),
    } | ({"bytes": memory} if memory else {})


def markdown(found: Offers, model: str, arch: Arch, batch: "Batch | None" = None) -> str:
    """Writes the table and what a reader must know of it.

    Args:
        found: What meets the budget.
        model: The model's name.
        arch: Its shapes.
        batch: The inputs for which memory was estimated, if it was.
    """
    asked = found.budget
    meaning = f"counts from {math.ceil(asked.low):,} to {math.ceil(asked.end) - 1:,} print so"
    meaning = "an upper bound" if asked.unit is None else meaning
    size = arch.size() - arch.head_size
    about = [
        f"{float(asked.weights):,.0f} weights, the head apart; {meaning}.",
        f"{model}: {size:,} weights, d = {arch.d_model}, {arch.num_layers} layers, {arch.num_heads} heads.",
    ]
    header = [*_HEADER, *([] if batch is None else _BYTES)]
    table = lines.aligned([header, *(_line(offer, batch) for offer in found.offers)]) if found.offers else []
    parts = [[f"## Budget {asked.given} on {model}"], about, table, _notes(found, arch, batch)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _line(offer: Offer, batch: "Batch | None") -> list[str]:
    held = offer.memory
    sizes: list[int | None] = []
    if held is not None and batch is not None:
        training = held.training if batch.on_gpu else held.on_cpu
        sizes = [held.weights, held.gradients, held.optimizer, held.activations, training, held.checkpoint]
    return [
        offer.method.name,
        _settings(offer.settings),
        f"{offer.trained:,}",
        percent(offer.utilisation),
        _others(offer),
        *map(_bytes, sizes),
    ]


def _settings(settings: dict[str, Any]) -> str:
    """Writes `q,v, r = 4`."""
    return ", ".join(",".join(value) if key == "targets" else f"{key} = {value}" for key, value in settings.items())


def _others(offer: Offer) -> str:
    """Says which other sizes meet the budget, and in how many other ways."""
    words = []
    if offer.meeting is not None and len(offer.meeting) > 1:
        words.append(f"{offer.meeting[0]} to {offer.meeting[-1]}")
    if offer.ways > 1:
        words.append(f"{offer.ways - 1} other dropped")
    return ", ".join(words)


def _bytes(number: int | None) -> str:
    """Writes a number of bytes in the largest unit of which there is a whole one."""
    if number is None:
        return "unknown"
    unit, name = next((pair for pair in _UNITS if number >= pair[0]), (1, "B"))
    return f"{number / unit:.{0 if unit == 1 else 1}f} {name}"


def _notes(found: Offers, arch: Arch, batch: "Batch | None") -> list[str]:
    methods = {offer.method.name for offer in found.offers}
    notes = ["would do too: other sizes that meet the budget; the nearest is in the table."]
    if batch is None:
        notes.append("--memory adds what training takes, in bytes.")
    else:
        device = "a GPU" if batch.on_gpu else "a CPU, with the process and the weights as read"
        notes += [
            f"training: the most that is held on {device}, without dropout, at {batch.size} x {batch.length} tokens in "
            f"{batch.products.value}: weights (what is trained in fp32), AdamW's moments, and what a step holds at its "
            "peak.",
            "checkpoint: the trained tensors as a file, in fp32 and with the head.",
        ]
    if any(name.startswith("lora_prefix") for name in methods):
        l_p, l_i = BESIDE_LORA
        notes.append(f"lora_prefix_*: beside l_p = {l_p} and l_i = {l_i}, as in Table 15; only their sum counts.")
    if methods & {"prefix_embed", "prefix_layer"}:
        notes.append(f"prefix_*: beside l_i = {INFIX} where there is room, as in the paper; only the sum counts.")
    if any(is_unequal(offer.utilisation) for offer in found.offers):
        notes.append(UNEQUAL)
    if grouped := unequal_widths(arch):
        notes.append(grouped)
    written = ["Notes:", *(f"- {note}" for note in notes)]
    return [*written, "- Not met:", *(f"  - {missed}" for missed in found.missed)] if found.missed else written
