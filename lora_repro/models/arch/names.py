"""Finds q, k, v, o, up, down, gate and embed by the names of a model's modules. No torch.

A pattern is a module's name with `*` for the number of its layer, the first number in the name. The table below holds
the names that transformers' classes use; `model.sites` says the rest.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lora_repro.errors import InputError
from lora_repro.models.arch.base import ROLES, Part, Shape, Site
from lora_repro.models.arch.listing import matrices

_ATTENTION = r"(?:self_attn|self_attention|attention|attn|attention\.self|attention\.attn|attn\.attention)"
_MLP = r"(?:mlp|ffn|feed_forward)"
NAMES = {
    "q": rf"{_ATTENTION}\.(?:q_proj|q_lin|query|query_proj|q)",
    "k": rf"{_ATTENTION}\.(?:k_proj|k_lin|key|key_proj|k)",
    "v": rf"{_ATTENTION}\.(?:v_proj|v_lin|value|value_proj|v)",
    "o": rf"{_ATTENTION}\.(?:o_proj|out_proj|out_lin|dense|Wo|o)|attention\.output\.dense",
    "up": rf"(?:{_MLP}\.)?(?:up_proj|fc1|lin1|fc_in|dense_h_to_4h)|intermediate\.dense",
    "down": rf"(?:{_MLP}\.)?(?:down_proj|fc2|lin2|fc_out|dense_4h_to_h)|{_MLP}\.Wo|output\.dense",
    "gate": rf"(?:{_MLP}\.)?gate_proj",
}
"""What follows the number of the layer in a module's name. Only names of self-attention are here: a cross-attention or
an expert has another name, and a vision tower adds a second candidate, so that neither is taken."""
EMBED = r"(?:.*\.)?(?:embed_tokens|word_embeddings|tok_embeddings|wte|embed_in)"

FUSED: dict[str, tuple[tuple[str, ...], bool]] = {
    "q_k_v": (("q", "k", "v"), False),
    "q_k_v_by_head": (("q", "k", "v"), True),
    "gate_up": (("gate", "up"), False),
    "up_gate": (("up", "gate"), False),
}
"""Keys of `model.sites` for a module that computes several matrices: their order, and if it repeats head by head."""
KEYS = (*ROLES, *FUSED)
HOW_TO_SAY = (
    "Say where a matrix is: model.sites.q=layers.*.attn.q_proj (the module's name, * for the number of the layer; its "
    "beginning may be left out). A module that computes several, one after the other: model.sites.q_k_v=..., "
    "model.sites.gate_up=... or up_gate; repeated head by head: model.sites.q_k_v_by_head=..."
)


class Reading(NamedTuple):
    """Which matrices were found in a model, and which were left."""

    taken: Mapping[str, str]
    """By role the pattern and how many modules have it."""
    doubtful: Mapping[str, tuple[str, ...]]
    """By role the patterns of which each could be it, so that none was taken."""
    rest: tuple[str, ...]
    """The matrices that have no role, one line for those that differ in a number."""
    given: Mapping[str, str]
    """By key of `model.sites` the whole pattern that was meant, whatever of its beginning was left out."""

    def describe(self) -> str:
        """Says what was taken for which matrix."""
        taken = [f"{role} = {found}" for role, found in self.taken.items()]
        doubtful = [
            f"{role} could be {' or '.join(those)}, so it is not adapted" for role, those in self.doubtful.items()
        ]
        return "; ".join([*taken, *doubtful]) or "no matrix is known by its name"

    def advice(self) -> str:
        """Lists the matrices without a role, and says how to give them one."""
        doubtful = [f"  {role}: {' or '.join(those)}" for role, those in self.doubtful.items()]
        listed = [f"  {line}" for line in self.rest]
        parts = [["Each of these could be it:", *doubtful] if doubtful else []]
        parts += [["Matrices without a name here:", *listed] if listed else []]
        return "\n".join([*(line for part in parts for line in part), HOW_TO_SAY])


class _Module(NamedTuple):
    name: str
    layer: int | None
    shape: Shape


def find_sites(
    parameters: Mapping[str, Shape],
    given: Mapping[str, str],
    transposed: Iterable[str] = (),
    heads: int = 1,
    attention_width: int | None = None,
    vocabulary: int | None = None,
) -> tuple[tuple[Site, ...], Reading]:
    """Finds the matrices that can be adapted.

    Args:
        parameters: The backbone's parameters, without the head's.
        given: `model.sites`: patterns by role, or by a key of FUSED.
        transposed: The modules that keep their weight as (d_in, d_out).
        heads: The number of attention heads, for what is fused head by head.
        attention_width: The outputs of q, k and v each, where they are computed by one module.
        vocabulary: The rows of the token embedding.

    Returns:
        The sites, layer by layer, and what was taken for what.

    Raises:
        InputError: If what is given means no matrix, or more than one.
    """
    modules = _by_pattern(parameters)
    meant = {key: _meant(key, pattern, modules, parameters) for key, pattern in given.items()}
    chosen = dict(meant)
    given_roles = {role for key in chosen for role in (FUSED[key][0] if key in FUSED else (key,))}
    if len(given_roles) < sum(len(FUSED[key][0]) if key in FUSED else 1 for key in chosen):
        raise InputError(f"model.sites: a matrix is given twice (given: {', '.join(chosen)}).\nGive each once.")
    doubtful: dict[str, tuple[str, ...]] = {}
    for role in (role for role in ROLES if role not in given_roles):
        found = [pattern for pattern in modules if _is_called(role, pattern, modules[pattern], vocabulary)]
        found = [pattern for pattern in found if pattern not in chosen.values()]
        if len(found) == 1:
            chosen[role] = found[0]
        elif found:
            doubtful[role] = tuple(found)
    stacks = {_stack(pattern) for key, pattern in chosen.items() if key not in given and key != "embed"}
    if len(stacks) > 1:  # an encoder and a decoder, a text and a vision model: it is not known which is meant
        for key in [key for key in chosen if key not in given and key != "embed"]:
            doubtful[key] = (chosen.pop(key),)
    flipped = frozenset(transposed)
    sites = [
        site
        for key, pattern in chosen.items()
        for site in _sites(key, modules[pattern], flipped, heads, attention_width)
    ]
    sites.sort(key=lambda site: (-1 if site.layer is None else site.layer, ROLES.index(site.role)))
    taken = {key: f"{chosen[key]} ({len(modules[chosen[key]])})" for key in KEYS if key in chosen}
    used = {f"{module.name}.weight" for pattern in chosen.values() for module in modules[pattern]}
    rest = matrices({name: shape for name, shape in parameters.items() if name not in used})
    return tuple(sites), Reading(taken, doubtful, tuple(rest), meant)


def _by_pattern(parameters: Mapping[str, Shape]) -> dict[str, list[_Module]]:
    """Sorts the modules that hold a matrix by their pattern, layer by layer."""
    modules: dict[str, list[_Module]] = {}
    for name, shape in parameters.items():
        if len(shape) == 2 and name.endswith(".weight"):
            parts = name.removesuffix(".weight").split(".")
            at = next((index for index, part in enumerate(parts) if part.isdigit()), None)
            layer = int(parts[at]) if at is not None else None
            pattern = ".".join("*" if index == at else part for index, part in enumerate(parts))
            modules.setdefault(pattern, []).append(_Module(".".join(parts), layer, shape))
    return modules


def _is_called(role: str, pattern: str, modules: list[_Module], vocabulary: int | None) -> bool:
    stack, star, rest = pattern.partition("*.")
    if role == "embed":
        return not star and re.fullmatch(EMBED, pattern) is not None and vocabulary in (None, modules[0].shape[0])
    return bool(star and stack) and re.fullmatch(NAMES[role], rest) is not None


def _stack(pattern: str) -> str:
    return pattern.partition("*")[0]


def _meant(key: str, given: str, modules: Mapping[str, list[_Module]], parameters: Mapping[str, Shape]) -> str:
    """Returns the whole pattern that a given one means.

    Raises:
        InputError: If it is none, or means no module with a matrix, or more than one pattern of them.
    """
    if key not in KEYS:
        raise InputError(f"model.sites.{key}: there is no such matrix.\nKnown: {', '.join(KEYS)}.")
    wanted = 0 if key == "embed" else 1
    if not re.fullmatch(r"(?:\w+|\*)(?:\.(?:\w+|\*))*", given) or given.split(".").count("*") != wanted:
        raise InputError(
            f"model.sites.{key}: must be a module's name with {'no *' if wanted == 0 else 'one * for the layer'} "
            f"(given: {given}).\n{HOW_TO_SAY}"
        )
    found = [pattern for pattern in modules if f".{pattern}".endswith(f".{given}")]
    if len(found) != 1:
        which = f"more than one module: {', '.join(found)}" if found else "no module with a weight of two dimensions"
        listed = "\n".join(f"  {line}" for line in matrices(parameters))
        hint = "Give more of the name. " if found else ""
        raise InputError(f"model.sites.{key}: {given} means {which}.\nMatrices here:\n{listed}\n{hint}{HOW_TO_SAY}")
    return found[0]


def _sites(
    key: str, modules: list[_Module], transposed: frozenset[str], heads: int, attention_width: int | None
) -> Iterable[Site]:
    """Yields the sites of a pattern's modules: one each, or one for each part of a fused module.

    Raises:
        InputError: If the parts are not equally wide.
    """
    roles, by_head = FUSED.get(key, ((key,), False))
    groups = heads if by_head else 1
    for module in modules:
        flipped = module.name in transposed
        features, d_in = module.shape[::-1] if flipped or key == "embed" else module.shape
        is_odd = features % (len(roles) * groups) or ("q" in roles and features // len(roles) != attention_width)
        if len(roles) > 1 and is_odd:
            raise InputError(
                f"model.sites.{key}: {module.name} has {features} outputs, which are not {len(roles)} equal parts"
                f"{f' of {attention_width}' if 'q' in roles else ''}. Matrices of different widths in one module "
                "are not supported.\nLeave it out, and adapt the matrices that have a module of their own."
            )
        for position, role in enumerate(roles):
            part = Part(position, len(roles), groups) if len(roles) > 1 else None
            yield Site(module.layer, role, module.name, d_in, features // len(roles), part, flipped)
