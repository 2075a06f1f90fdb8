"""What meets a parameter budget on a model: sets of matrices with their rank, and every other method."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_repro.config.schema import load_group
from lora_repro.costs import budget
from lora_repro.costs.budget import Budget, Line
from lora_repro.errors import InputError
from lora_repro.machine import GIB
from lora_repro.methods import (
    METHODS,
    AdapterDConfig,
    LoRAConfig,
    LoRAPrefixEmbedConfig,
    LoRAPrefixLayerConfig,
    MethodConfig,
    PrefixEmbedConfig,
    PrefixLayerConfig,
    SizedConfig,
)
from lora_repro.models.arch import Arch, ModelConfig
from lora_repro.models.architecture import read_blueprint
from lora_repro.models.inputs import read_config
from lora_repro.sweep.grid import Job

if TYPE_CHECKING:
    from lora_repro.costs.memory import Batch, Memory

ATTENTION: tuple[str, ...] = ("q", "k", "v", "o")
INFIX = 8
"""l_i, tokens behind the input, at which l_p is solved: the best of both methods in the paper (Section 5.5)."""
BESIDE_LORA = (8, 4)
"""l_p and l_i of Table 15's LoRA+PE and LoRA+PL."""
SETTINGS = ("targets", "r", "bottleneck", "dropped", "l_p", "l_i")


class Offer(NamedTuple):
    """A method that meets the budget."""

    group: str
    method: MethodConfig
    meeting: range | None
    """All sizes that meet the budget; the method has the nearest. None if the method has no size."""
    ways: int
    """How many settings other than the size meet it (AdapterDrop: numbers of dropped blocks)."""
    trained: int
    utilisation: float
    memory: "Memory | None" = None
    """Memory of training, if it was asked for."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it has: targets, r, bottleneck ..."""
        return {key: getattr(self.method, key) for key in SETTINGS if hasattr(self.method, key)}


class Offers(NamedTuple):
    """What meets a budget, and what does not."""

    budget: Budget
    offers: list[Offer]
    """Group by group, in each the nearest to the budget first."""
    missed: list[str]
    """Sentences on the methods that do not meet it, with the nearest sizes."""


def model_of(
    name: str, folder: str | None, num_labels: int | None, sites: Mapping[str, str] | None = None
) -> tuple[Mapping[str, Any], Arch]:
    """Returns the keys of a model's config.json, and its shapes.

    Args:
        name: A model of conf/model.
        folder: Of model=local, which is read.
        num_labels: Width of a classification head; None: two labels of an encoder, and no head of a decoder.
        sites: Of model=local: which modules are q, k, v ..., as `model.sites` says it.

    Raises:
        InputError: If there is no such model, or it is impossible.
    """
    if num_labels is not None and num_labels < 1:
        raise InputError(f"--num-labels: must be at least 1 (given: {num_labels}).")
    model: ModelConfig = load_group("model", name)
    if name == "local":
        model.config, model.sites = read_config(folder), dict(sites or {})

    def arch(labels: int | None) -> Arch:
        if name == "local":
            model.blueprint = read_blueprint(Path(folder or "").expanduser(), model.config, labels)
        return model.arch(labels)

    if num_labels is not None:
        return model.config, arch(num_labels)
    with_head = arch(2)
    return model.config, arch(None) if with_head.is_decoder else with_head


def offers(arch: Arch, given: object, targets: Sequence[list[str]] = ()) -> Offers:
    """Returns all that meets a budget.

    Args:
        arch: The model's shapes, with its head.
        given: The budget: 18M, 0.01%, or a whole number as a bound.
        targets: Sets of matrices; none are all sets of a block's matrices.

    Raises:
        InputError: If the budget or the targets are impossible.
    """
    asked = budget.read(given, arch)
    found: list[Offer] = []
    missed: list[str] = []
    groups: list[str] = []
    for group, alternatives in _candidates(arch, targets):
        groups.append(group)
        sized = [_sized(method, arch, asked) for method in alternatives]
        met = [(method, sizes) for method, sizes, refusal in sized if refusal is None]
        if not met:
            missed += [refusal for _, _, refusal in sized[:1] if refusal is not None]
            continue
        (method, sizes), ways = met[0], len({getattr(method, "dropped", None) for method, _ in met})
        count = method.count(arch).method
        found.append(Offer(group, method, sizes, ways, count, asked.utilisation(count)))
    found.sort(key=lambda offer: (groups.index(offer.group), abs(offer.utilisation - 1)))
    return Offers(asked, found, missed)


def with_memory(found: Offers, arch: Arch, config: Mapping[str, Any], batch: "Batch") -> Offers:
    """Returns the offers with what training takes by each of them.

    Args:
        found: The offers.
        arch: The model's shapes, with its head.
        config: The keys of its config.json.
        batch: The inputs of a step.
    """
    from lora_repro.costs.memory import Case, estimate

    held = (estimate(Case(offer.method, arch, config, batch)) for offer in found.offers)
    return found._replace(offers=[offer._replace(memory=each) for offer, each in zip(found.offers, held, strict=True)])


def _candidates(arch: Arch, targets: Sequence[list[str]]) -> Iterator[tuple[str, list[MethodConfig]]]:
    """Yields what may meet a budget once it is sized, each as a list of alternatives of which the first counts."""
    sets = [*targets] or _sets_of(arch)
    for roles in sets:
        yield "LoRA", [LoRAConfig("lora", roles, 1, 1.0, 0.0)]
    beside = sets if targets else [["q", "v"]]
    l_p, l_i = BESIDE_LORA
    for roles in beside:
        yield "LoRA and prefix", [LoRAPrefixEmbedConfig("lora_prefix_embed", roles, 1, 1.0, 0.0, l_p=l_p, l_i=l_i)]
        yield "LoRA and prefix", [LoRAPrefixLayerConfig("lora_prefix_layer", roles, 1, 1.0, 0.0, l_p=l_p, l_i=l_i)]
    for name, kind in (("prefix_embed", PrefixEmbedConfig), ("prefix_layer", PrefixLayerConfig)):
        yield "prefix", [kind(name, l_p=1, l_i=infix) for infix in (INFIX, 0)]
    for name in ("adapter_h", "adapter_l", "adapter_p"):
        yield "adapters", [METHODS[name](name, bottleneck=1)]  # pyright: ignore[reportCallIssue]
    yield "adapters", [AdapterDConfig("adapter_d", bottleneck=1, dropped=n) for n in range(1, arch.num_layers)]
    for name in ("full", "ft_top2", "bitfit"):
        yield "parts of the model", [METHODS[name](name)]


def _sets_of(arch: Arch) -> list[list[str]]:
    """Returns every set of a block's matrices, small sets first."""
    roles = [role for role in arch.roles if role != "embed"]
    return [list(some) for size in range(1, len(roles) + 1) for some in combinations(roles, size)]


def _sized(method: MethodConfig, arch: Arch, asked: Budget) -> tuple[MethodConfig, range | None, str | None]:
    """Returns a method at the size that meets the budget, all sizes that do, and why it does not where none does.

    Raises:
        InputError: If its targets are impossible.
    """
    if isinstance(method, SizedConfig):
        line = Line.of(method, arch)
        if sizes := line.meeting(asked):
            return replace(method, **{method.size_key: sizes.best}), sizes.meeting, None
        near = (f"{method.size_key} = {size} trains {asked.printed(line.at(size))}" for size in line.neighbours(asked))
        return method, None, f"{_named(method)}: {', '.join(near)}"
    try:
        method.check(arch)
    except InputError as error:
        return method, None, str(error).splitlines()[0].removeprefix("method=")
    count = method.count(arch).method
    return method, None, None if asked.admits(count) else f"{method.name}: trains {asked.printed(count)}"


def _named(method: SizedConfig) -> str:
    return f"{method.name} on {','.join(method.scope)}" if method.scope else method.name


def unequal_widths(arch: Arch) -> str | None:
    """Says that one r trains more weights on some attention matrices than on others, as where k and v are grouped."""
    widths = {site.role: site.d_in + site.d_out for site in arch.sites if site.layer == 0 and site.role in ATTENTION}
    if len(set(widths.values())) <= 1:
        return None
    narrow = [role for role, width in widths.items() if width < max(widths.values())]
    return (
        f"{', '.join(narrow)} of this {arch.model_type} are narrower than the other attention matrices (grouped), and "
        "one r trains fewer weights on them: budgets are met nearly and cannot be made equal."
    )


def utilisation_lines(jobs: Sequence[Job]) -> list[str]:
    """Says which matrices were found in models that no function counts, and how runs use each model's budgets."""
    groups: dict[tuple[str, str], dict[tuple[str, int], float]] = {}
    notes: dict[str, str] = {}
    counted: dict[tuple[str, int | None, str], tuple[int, float | None]] = {}
    for run in (job.resolved.run for job in jobs):
        if (given := getattr(run.method, "budget", None)) is None:
            continue
        kind = (run.model.name, run.task.head_width, repr(run.method))
        if kind not in counted:
            counted[kind] = (run.trained_by_method, run.utilisation)
            if note := unequal_widths(run.arch):
                notes[run.model.name] = note
        count, used = counted[kind]
        if used is not None:
            groups.setdefault((run.model.name, str(given)), {})[run.method.label, count] = used
    archs = {job.resolved.run.model.name: job.resolved.run.arch for job in jobs}
    lines = [
        f"Matrices of {name}: {arch.reading.describe()}" for name, arch in archs.items() if arch.reading is not None
    ]
    for (model, given), used in groups.items():
        parts = [f"{label} {count:,} ({percent(part)})" for (label, count), part in used.items()]
        lines.append(f"Budget {given} on {model}: {', '.join(parts)}.")
        if any(map(budget.is_unequal, used.values())):
            lines.append(f"  {UNEQUAL}" + (f" {notes[model]}" if model in notes else ""))
    return lines


def memory_of(jobs: Sequence[Job]) -> list[str]:
    """Says what the largest runs of a sweep hold at most on this machine, a line for each kind of run."""
    from lora_repro.costs.memory import estimate_run, heaviest
    from lora_repro.training import device

    if not jobs:
        return []
    where, lines = device.prepare(jobs[0].resolved.settings.compute), []
    for run in heaviest(job.resolved.run for job in jobs):
        most = estimate_run(run, where).on(where)
        amount = "unknown" if most is None else f"{most / GIB:.2f} GiB"
        shape = f"{run.train.batch_size} x {run.train.max_length} tokens in {run.train.dtype.value}"
        lines.append(f"Memory of {run.model.name} {run.method.label} at {shape}: {amount} on {where}.")
    return list(dict.fromkeys(lines))  # tasks of one shape need the same


UNEQUAL = (
    f"(!) outside {100 * budget.TOLERATED[0]:.0f} to {100 * budget.TOLERATED[1]:.0f} % of the budget: "
    "not a comparison at equal budgets."
)


def percent(utilisation: float) -> str:
    """Writes how much of a budget is used, flagged where that is too far from all of it."""
    return f"{100 * utilisation:.1f} %{' (!)' * budget.is_unequal(utilisation)}"
