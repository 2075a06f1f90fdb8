"""What adapters hold beside B A: methods of other updates, by PEFT's names and others', and tensors that change no dW.

A tensor beside the factors whose meaning is not known here may change what they mean, so it is refused, never passed
over: KaSA's lora_diag and LoRA-XS's latent mapping stand between B and A.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from analysis.foreign_text import grouped
from lora_repro.errors import InputError, shown

_LEARNED_INPUTS = "learned inputs to the model, which change no weight"

METHODS: dict[str, tuple[str, str]] = {
    "DORA": ("dora_scale|lora_magnitude_vector|magnitude", "DoRA, which scales each column of W_0 + B A"),
    "LORA_XS": (".*lora_latent_mapping", "LoRA-XS, which has a matrix between B and A"),
    "IA3": ("ia3_l|on_input", "IA3, which scales rows or columns of W_0"),
    "OFT": ("oft_(?:embedding_)?R|oft_blocks|oft_diag", "OFT, a rotation of W_0"),
    "BOFT": ("boft_[Rs]", "BOFT, a rotation of W_0"),
    "HRA": ("hra_u", "HRA, a reflection of W_0"),
    "ROAD": ("road_(?:alpha|theta)", "RoAd, a rotation of the layer's output"),
    "PSOFT": ("psoft_.+", "PSOFT, a rotation within the main directions of W_0"),
    "OSF": ("osf_.+", "OSF, which trains the weak directions of W_0"),
    "MISS": ("miss_block", "MiSS, a block that is repeated over W_0"),
    "BONE": ("bone_(?:block)?", "Bone, a block that is repeated over W_0"),
    "HIRA": ("hira_(?:embedding_)?[AB]", "HiRA, a product of W_0 and B A entry by entry"),
    "DELORA": ("delora_.+", "DeLoRA, which scales each direction of B A to a common length"),
    "DEFT": ("deft_[PR]", "DEFT, which takes directions out of W_0"),
    "GLORA": ("glora_[A-E]", "GLoRA, which also scales W_0"),
    "GRALORA": ("gralora_.+", "GraLoRA, B A block by block"),
    "VERA": ("vera_(?:lambda_[bd]|[AB])", "VeRA, vectors between frozen random factors"),
    "PVERA": ("pvera_.+", "PVeRA, random vectors between frozen random factors"),
    "RANDLORA": ("randlora_.+", "RandLoRA, a weighted sum of frozen random matrices"),
    "TINYLORA": ("tinylora_v", "TinyLoRA, a vector that is projected into the main directions of W_0"),
    "UNILORA": ("unilora_.+", "Uni-LoRA, one vector that is projected into all factors"),
    "VBLORA": ("vblora_.+", "VB-LoRA, factors made of vectors from one bank"),
    "FROD": ("frod_.+", "FRoD, scales of frozen directions"),
    "ADAMSS": ("adamss_[AB](?:\\..+)?", "AdaMSS, updates of several subspaces of W_0"),
    "FOURIERFT": ("fourierft_spectrum", "FourierFT, Fourier coefficients of dW"),
    "WAVEFT": ("waveft_spectrum", "WaveFT, wavelet coefficients of dW"),
    "C3A": ("c3a_kernel", "C3A, circular convolutions"),
    "SHIRA": ("shira_(?:weight|indices)", "SHiRA, single entries of W_0"),
    "SUPERTUNING": ("supertuning_.+", "Super-Tuning, single entries of W_0"),
    "LILY": ("lily_.+", "Lily, factors that layers share and a router chooses"),
    "PEANUT": ("peanut_.+", "PEANuT, a network of W_0"),
    "SHADOW": ("shadow_(?:down|up|update_.+|dropout)", "ShadowPEFT, a network beside the model"),
    "POLY": ("poly_.+", "Poly, a mixture of several LoRA that a router chooses"),
    "XLORA": ("(?:internal_)?xlora_.+", "X-LoRA, a mixture of several LoRA by the input"),
    "LN_TUNING": ("ln_tuning_layers", "LN tuning, which trains norms and no matrix"),
    "BEFT": ("beft_bias", "BEFT, which trains biases and no matrix"),
    "TRAINABLE_TOKENS": ("trainable_tokens_delta", "trainable tokens: single rows of the embedding"),
    "ADAPTION_PROMPT": ("adaption_(?:prompt|gate)", f"LLaMA-Adapter: {_LEARNED_INPUTS}"),
    "PROMPT_TUNING": ("prompt_embeddings", _LEARNED_INPUTS),
    **dict.fromkeys(
        ("MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE"),
        ("prefix_task_(?:cols|rows)", _LEARNED_INPUTS),
    ),
}
"""By PEFT's name: what parts of a tensor's name look like, and what the method is. None of them adds B A to W_0."""

_MARKS = [(kind, re.compile(mark), words) for kind, (mark, words) in METHODS.items()]

_WITH_LORA = "TRAINABLE_TOKENS"
"""A method that PEFT's LoRA can have beside it, in layers of their own."""

_VECTOR = re.compile(r"lora_B(?:\.[^.]+)?\.bias|diff_b")
"""Changes of the bias of an adapted layer: PEFT's lora_bias, and what kohya and LyCORIS add."""

_VECTOR_APART = re.compile(r"diff(?:_b)?|[bw]_norm|trainable_tokens_delta")
"""In layers without factors: changes of biases and norms, and PEFT's trainable_token_indices."""

_HARMLESS = re.compile(
    r"(?:(?:base_layer|linear|conv|embedding|original_module|in_proj|out_proj|base_layer\.out_proj)[._])?(?:weight|bias)"
    r"|base_layer\.(?!.*lora)(?!.*magnitude).+"  # of the frozen layer: how it is quantised
    r"|lora_velora_embed(?:\.[^.]+)?|lora_monteclora_sampler\..+"  # used in training alone
)
"""Ends of names that may stand beside factors: the frozen layer's own tensors, and what only training uses."""

_TOOL = re.compile(r"(?:lora|lycoris)_(?:unet|te\d?|transformer)_.+")
"""The first part of names in files whose every tensor is an adapter's."""

_SCALE = re.compile(r"(?:network_|lora_)?alphas?|scaling|lora_scale")
_DEEPEST = 5
"""How many names below a module are searched."""


def refuse_other_method(path: Path, names: Iterable[str], alone: bool = False) -> None:
    """Refuses files of a method whose update is no B A.

    Args:
        path: What is named when something is wrong.
        names: Of the file's tensors.
        alone: There is no B A in it, so a method that can stand beside B A is all of it.

    Raises:
        InputError: Naming the method.
    """
    marks = [(mark, words) for kind, mark, words in _MARKS if alone or kind != _WITH_LORA]
    known: dict[str, str | None] = {}  # names of a large model have few parts that differ
    for name in names:
        for part in name.split("."):
            if part not in known:
                known[part] = next((words for mark, words in marks if mark.fullmatch(part)), None)
            if words := known[part]:
                raise InputError(
                    f"{path}: is of {words} ({shown(name)}).\nGive a LoRA adapter: B A, added to a weight. Or merge it "
                    "with the tool that made it, and give the whole checkpoint with --base."
                )


def sort_out(path: Path, names: Iterable[str], adapted: Collection[str]) -> tuple[list[str], list[str]]:
    """Tells what the tensors that are no factors are.

    Args:
        path: What is named when something is wrong.
        names: Of tensors that no layout knows.
        adapted: The modules that have factors, as their names begin in the file.

    Returns:
        What has nothing to do with the updates (heads, whole layers), and changes of biases, norms and single tokens.

    Raises:
        InputError: If one may change what the factors mean.
    """
    apart, vectors = list[str](), list[str]()
    for name in names:
        rest = _below(name, adapted)
        known = _VECTOR.fullmatch(rest) if rest is not None else _VECTOR_APART.fullmatch(name.rpartition(".")[2])
        if known:
            vectors.append(name)
        elif (rest is not None and not _HARMLESS.fullmatch(rest)) or (rest is None and _belongs(name)):
            raise InputError(
                f"{path}: holds {shown(name)}, and what it does to the update is not known here.\nGive a LoRA adapter "
                "of B A alone, or merge it with the tool that made it, and give the whole checkpoint with --base."
            )
        else:
            apart.append(name)
    return apart, vectors


def vector_note(vectors: Iterable[str]) -> list[str]:
    """Says which biases, norms and single tokens an adapter changes beside its matrices."""
    names = grouped(vectors)
    return [f"Changes biases, norms or single tokens too, which are no part of a figure: {names}."] if names else []


def _below(name: str, adapted: Collection[str]) -> str | None:
    """Returns a tensor's name below the adapted module that it stands in; None where it stands in none."""
    module, rest = name, ""
    for _ in range(_DEEPEST):
        module, dot, last = module.rpartition(".")
        if not dot:
            return None
        rest = f"{last}.{rest}" if rest else last
        if module in adapted:
            return rest
    return None


def _belongs(name: str) -> bool:
    """Tells whether a tensor apart from all factors is an adapter's all the same."""
    first, _, rest = name.partition(".")
    parts = name.lower().split(".")
    return bool(
        (_TOOL.fullmatch(first) and rest)
        or any("lora" in re.split(r"[_\d]", part) or part.endswith("lora") for part in parts[-4:])
        or _SCALE.fullmatch(parts[-1])
    )
