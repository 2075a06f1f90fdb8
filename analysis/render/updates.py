"""What `inspect` and `compare` found becomes text: Markdown, JSON, CSV. Foreign names are escaped here."""

import csv
import io
import json
from collections.abc import Iterable, Sequence

import numpy as np

from analysis.adapters import Adapter
from analysis.foreign_text import escaped
from analysis.render.lines import aligned
from analysis.section7.comparison import Compared, Comparison
from analysis.section7.inspection import Inspected, Inspection
from analysis.section7.subspace import near_equal, shared_dimensions
from lora_repro.errors import shown

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters with which a formula begins in a spreadsheet (OWASP, CSV Injection), in full width too."""

_FROM_ZERO = " Layers count from 0, as in the checkpoint."


def inspection_json(inspection: Inspection) -> str:
    """Writes a list of objects, a matrix each, on a line of its own."""
    return _lines(
        {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row._asdict().items()}
        for row in inspection.rows
    )


def comparison_json(comparison: Comparison) -> str:
    """Writes a list of objects, a grid each, on a line of its own."""
    return _lines(
        {
            "layer": row.layer,
            "weight": row.weight,
            "module": row.modules[0],
            "side": row.side.value,
            "d": row.d,
            "phi": row.phi.tolist(),
            "null": row.null.tolist(),
            "singular_values": [s.tolist() for s in row.strengths],
            "shared_dimensions": _shared(row),
            "rho": row.rho.tolist(),
            "principal_angles": row.angles.tolist(),
            "A_cosine": row.alike.A,
            "B_cosine": row.alike.B,
            "moved": row.moved,
            "above_edge": row.above_edge,
            "above_rounding": [each.above for each in row.rounded],
        }
        for row in comparison.rows
    )


def inspection_csv(inspection: Inspection) -> str:
    """Writes a row a matrix; the singular values are separated by spaces."""
    rows = [_flat(row) for row in inspection.rows]
    return _csv(list(rows[0]), (list(row.values()) for row in rows))


def _flat(row: Inspected) -> dict[str, object]:
    """Returns the cells of a row; what is a list comes last."""
    cells: dict[str, object] = {
        name: value for name, value in row._asdict().items() if not isinstance(value, np.ndarray)
    }
    lists = {name: value for name, value in row._asdict().items() if name not in cells}
    cells |= {"weight": _cell(row.weight), "module": _cell(row.module), "shape": "x".join(map(str, row.shape))}
    return cells | {name: " ".join(map(repr, values.tolist())) for name, values in lists.items()}


def comparison_csv(comparison: Comparison) -> str:
    """Writes a row a cell of each grid; i and j count from 1, as in the paper."""
    return _csv(
        ["layer", "weight", "module", "side", "i", "j", "phi", "null"],
        (
            [*where, i + 1, j + 1, float(phi), float(row.null[i, j])]
            for row in comparison.rows
            for where in [(row.layer, _cell(row.weight), _cell(row.modules[0]), row.side.value)]
            for (i, j), phi in np.ndenumerate(row.phi)
        ),
    )


def inspection_markdown(adapter: Adapter, inspection: Inspection) -> str:
    """Writes a row a matrix."""
    rows = inspection.rows
    columns = ["r", "scaling", "norm of dW", "largest singular value", "effective rank", "stable rank", "90 % in"]
    with_modules = _with_modules(rows)
    cut = any(row.energy_kept < 1 for row in rows)
    beside = any(row.relative_norm is not None for row in rows)
    has_moved = any(row.moved is not None for row in rows)
    has_edge = any(row.above_edge is not None for row in rows)
    header = [*_names(rows), *columns, *["energy in r"] * cut, *["norm of dW / norm of W_0"] * beside]
    header += [*["A moved"] * has_moved, *["A above edge"] * has_edge]
    rounded = any(row.rounding is not None for row in rows)
    header += ["norm of rounding", "above rounding"] * rounded
    table = [
        [
            *_name(row.layer, row.weight, row.module, with_modules),
            str(row.r),
            "unknown" if row.scaling is None else f"{row.scaling:.4g}",
            f"{row.norm:.4g}",
            f"{row.singular_values[0]:.4g}",
            "" if row.effective_rank is None else f"{row.effective_rank:.2f}",
            f"{row.stable_rank:.2f}",
            "" if row.directions_of_90 is None else str(row.directions_of_90),
            *[f"{100 * row.energy_kept:.1f} %"] * cut,
            *["" if row.relative_norm is None else f"{row.relative_norm:.4g}"] * beside,
            *["" if row.moved is None else f"{row.moved:.3g}"] * has_moved,
            *["" if row.above_edge is None else str(row.above_edge)] * has_edge,
            *["" if row.rounding is None else f"{row.rounding:.3g}"] * rounded,
            *["" if row.above_rounding is None else str(row.above_rounding)] * rounded,
        ]
        for row in rows
    ]
    about = f"{escaped(shown(adapter.name))}: {adapter.format}, {len(rows)} matrices.{_from_zero(rows)}"
    legend = ["90 % in: how many directions hold 90 % of the squared norm of dW."]
    legend += ["A moved: norm of A - A_0 / norm of A_0."] * has_moved
    legend += [
        "A above edge: singular values of A above those of 99 % of untrained A, as its format draws them."
    ] * has_edge
    legend += [
        "Norm of rounding: of the difference that storing the weights makes by itself; above rounding: directions of "
        "dW that are larger than its largest."
    ] * rounded
    about += "\n" + " ".join(legend)
    return "\n\n".join([about, "\n".join(aligned([header, *table])), *_notes(inspection.notes)])


def comparison_markdown(first: Adapter, second: Adapter, comparison: Comparison) -> str:
    """Writes a row a matrix: corners of its grid with what chance gives, and how many dimensions are shared beyond."""
    rows = comparison.rows
    with_modules = _with_modules(rows)
    header = [
        *_names(rows),
        "r",
        "phi(1, 1)",
        "phi(1, all)",
        "phi(all, all)",
        "shared beyond chance",
        "angles (degrees)",
        "d",
    ]
    table = [
        [
            *_name(row.layer, row.weight, row.modules[0], with_modules),
            "{} | {}".format(*row.phi.shape),
            *(f"{row.phi[cell]:.3f} ({row.null[cell]:.3f})" for cell in ((0, 0), (0, -1), (-1, -1))),
            f"{round(_shared(row), 2) + 0.0:.2f} of {min(row.phi.shape)}",
            f"{row.angles[0]:.1f} to {row.angles[-1]:.1f}",
            str(row.d),
        ]
        for row in rows
    ]
    about = (
        f"{escaped(shown(first.name))} (i) | {escaped(shown(second.name))} (j): {rows[0].side.description}.\n"
        "phi(i, j) of the first i and j directions (Section 7.2); in brackets what random ones give on average, "
        "max(i, j) / d."
        f"{_from_zero(rows)}"
    )
    notes = [*comparison.notes, *_unordered(rows, (first, second))]
    return "\n\n".join([about, "\n".join(aligned([header, *table])), *_notes(notes)])


def _shared(row: Compared) -> float:
    """Returns how many dimensions all directions of the two share beyond chance."""
    return float(shared_dimensions(row.phi, row.d)[-1, -1])


def _unordered(rows: Sequence[Compared], adapters: tuple[Adapter, Adapter]) -> Iterable[str]:
    """Yields which directions have no order: of nearly equal singular values only the common span is determined."""
    for index, adapter in enumerate(adapters):
        groups = {(row.layer, row.modules[index], row.weight): near_equal(row.strengths[index]) for row in rows}
        groups_named = [
            f"{f'layer {layer}' if layer is not None else module} {weight} "
            + ", ".join(f"{group[0] + 1} to {group[-1] + 1}" for group in found)
            for (layer, module, weight), found in groups.items()
            if found
        ]
        if groups_named:
            yield (
                f"{shown(adapter.name)}: directions of nearly equal singular values, of which only the span is known: "
                f"{shown('; '.join(groups_named))}."
            )


def _with_modules(rows: Sequence[Inspected] | Sequence[Compared]) -> bool:
    """Returns whether layer and role do not identify a matrix, as in a U-Net."""
    has_unplaced = any(row.layer is None and row.weight in tuple("qkvo") for row in rows)
    return has_unplaced or len({(row.layer, row.weight) for row in rows}) < len(rows)


def _from_zero(rows: Sequence[Inspected] | Sequence[Compared]) -> str:
    return "" if _with_modules(rows) else _FROM_ZERO


def _names(rows: Sequence[Inspected] | Sequence[Compared]) -> list[str]:
    return ["module" if _with_modules(rows) else "layer", "matrix"]


def _name(layer: int | None, weight: str, module: str, with_modules: bool) -> list[str]:
    place = escaped(shown(module)) if with_modules else "" if layer is None else str(layer)
    return [place, escaped(shown(weight))]


def _notes(notes: Sequence[str]) -> list[str]:
    return ["Notes:\n" + "\n".join(f"- {escaped(note)}" for note in notes)] if notes else []


def _lines(entries: Iterable[dict[str, object]]) -> str:
    return "[\n" + ",\n".join(json.dumps(entry, allow_nan=False) for entry in entries) + "\n]"


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _cell(name: str) -> str:
    """Writes a foreign name so that no spreadsheet takes it for a formula, and no terminal for a command."""
    return f"'{shown(name)}" if name.startswith(_FORMULAS) else shown(name)
