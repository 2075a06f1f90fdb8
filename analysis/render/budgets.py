"""What meets a budget, as a Markdown table or JSON."""

import json
import math
from typing import Any

from analysis.budgets import BESIDE_LORA, INFIX, UNEQUAL, Offer, Offers, percent, unequal_widths
from analysis.render.lines import aligned
from lora_repro.costs.budget import is_unequal
from lora_repro.costs.saved_tensors import Batch
from lora_repro.methods import METHODS, SizedConfig, trainable
from lora_repro.models.arch import Arch

_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_HEADER = [
    *("method", "settings", "trained", "of the budget", "would do too"),
    *("weights", "gradients", "optimizer", "activations", "training", "checkpoint"),
]


def to_json(found: Offers, model: str) -> str:
    """Writes a list of objects, an offer each; bytes are whole numbers."""
    return json.dumps([_entry(offer, found, model) for offer in found.offers], indent=1)


def _entry(offer: Offer, found: Offers, model: str) -> dict[str, Any]:
    meeting = offer.meeting
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
        "bytes": {**offer.memory._asdict(), "training": offer.memory.training, "on_cpu": offer.memory.on_cpu},
    }


def markdown(found: Offers, model: str, arch: Arch, batch: Batch, on_cpu: bool) -> str:
    """Writes the table and what a reader must know of it.

    Args:
        found: What meets the budget.
        model: The model's name.
        arch: Its shapes.
        batch: The inputs for which memory was estimated.
        on_cpu: Whether it is trained on a CPU.
    """
    asked = found.budget
    meaning = f"counts from {math.ceil(asked.low):,} to {math.ceil(asked.end) - 1:,} print so"
    meaning = "an upper bound" if asked.unit is None else meaning
    size = arch.size() - arch.head_size
    about = [
        f"{float(asked.weights):,.0f} weights, the head apart; {meaning}.",
        f"{model}: {size:,} weights, d = {arch.d_model}, {arch.num_layers} layers, {arch.num_heads} heads.",
    ]
    table = aligned([_HEADER, *(_line(offer, on_cpu) for offer in found.offers)]) if found.offers else []
    parts = [[f"## Budget {asked.given} on {model}"], about, table, _notes(found, arch, batch, on_cpu)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _line(offer: Offer, on_cpu: bool) -> list[str]:
    held = offer.memory
    training = held.on_cpu if on_cpu else held.training
    sizes = (held.weights, held.gradients, held.optimizer, held.activations, training, held.checkpoint)
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


def _bytes(number: int) -> str:
    """Writes a number of bytes in the largest unit of which there is a whole one."""
    unit, name = next((pair for pair in _UNITS if number >= pair[0]), (1, "B"))
    return f"{number / unit:.{0 if unit == 1 else 1}f} {name}"


def _notes(found: Offers, arch: Arch, batch: Batch, on_cpu: bool) -> list[str]:
    methods = {offer.method.name for offer in found.offers}
    where = "a CPU, with the process and the weights as read" if on_cpu else "a GPU"
    notes = [
        f"training: at most held on {where}, by estimate and without dropout, at {batch.size} x {batch.length} tokens "
        f"in {batch.products.value}: weights (what is trained in fp32), AdamW's moments, and the larger of activations "
        "and gradients.",
        "checkpoint: the trained tensors as a file, in fp32 and with the head.",
        "would do too: other sizes that meet the budget; the nearest is in the table.",
    ]
    if counted := [name for name in METHODS if name in methods and name not in trainable()]:
        notes.append(f"Counted from shapes and not trained here yet: {', '.join(counted)}.")
    if any(name.startswith("lora_prefix") for name in methods):
        l_p, l_i = BESIDE_LORA
        notes.append(f"lora_prefix_*: beside l_p = {l_p} and l_i = {l_i}, as in Table 15; only their sum counts.")
    if methods & {"prefix_embed", "prefix_layer"}:
        notes.append(f"prefix_*: beside l_i = {INFIX} where there is room, as in the paper; only the sum counts.")
    if any(is_unequal(offer.utilisation) for offer in found.offers):
        notes.append(UNEQUAL)
    if grouped := unequal_widths(arch):
        notes.append(grouped)
    lines = ["Notes:", *(f"- {note}" for note in notes)]
    return [*lines, "- Not met:", *(f"  - {missed}" for missed in found.missed)] if found.missed else lines
