"""LLaMA-Adapter (Zhang et al. 2023): the queries of upper layers also read trained prompts, behind a gate at zero."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lora_repro.methods.prefixes.attention import ask_here
from lora_repro.models.arch import Arch
from lora_repro.models.parts import outputs_of


class GatedPrompt(nn.Module):
    """The prompt of a layer, as wide as what enters it, and its gate, both in fp32.

    Args:
        prompt: The vectors of the prompt's tokens.
    """

    def __init__(self, prompt: Float[Tensor, "tokens d"]) -> None:
        super().__init__()
        self.prompt = nn.Parameter(prompt)
        self.gate = nn.Parameter(torch.zeros(1))


def attach(model: Any, arch: Arch, prompts: dict[int, Float[Tensor, "tokens d"]]) -> None:
    """Lets layers read prompts beside the input, in place, as `model.llama_adapter`.

    Args:
        model: The model.
        arch: Its shapes.
        prompts: The prompts at their start, by the number of the layer.
    """
    model.llama_adapter = nn.ModuleDict({str(layer): GatedPrompt(prompt) for layer, prompt in prompts.items()})
    attention = ask_here(model, arch)
    for layer in prompts:
        attention[layer].beside = _Beside(model, arch, layer)


class _Beside:
    """What a layer's queries read of its prompt, each through the layer's own W_k and W_v.

    It is no module: its parts are others' already.
    """

    def __init__(self, model: Any, arch: Arch, layer: int) -> None:
        here = {site.role: site for site in arch.sites if site.layer == layer}
        self.sites = here["k"], here["v"]
        self.width = here["q"].d_out // arch.num_heads
        self.model, self.layer = model, str(layer)

    def __call__(
        self, query: Float[Tensor, "batch heads queries d"], scale: float
    ) -> Float[Tensor, "batch heads queries d"]:
        """Returns g softmax(s Q K^T) V for the keys and values of the prompt, which have no position."""
        own = self.model.llama_adapter[self.layer]
        key, value = (self._heads(site, own.prompt, query) for site in self.sites)
        p = F.softmax(torch.matmul(query, key.transpose(-1, -2)) * scale, -1, dtype=torch.float32)
        return own.gate * torch.matmul(p.to(query.dtype), value)

    def _heads(self, site: Any, prompt: Tensor, query: Tensor) -> Float[Tensor, "heads tokens d"]:
        out = self.model.get_submodule(site.module)(prompt[None])[0]
        out = out if site.part is None else outputs_of(out, site.part).flatten(-2)
        heads = out.unflatten(-1, (-1, self.width)).transpose(0, 1).to(query.dtype)
        return heads.repeat_interleave(query.shape[1] // len(heads), 0)
