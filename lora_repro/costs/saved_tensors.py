"""What autograd keeps for the backward pass, tensor by tensor, as transformers and precision.py compute. No torch.

A product keeps an operand where the other one's gradient is wanted: in fp32 the tensor itself (one, however many
products read it), in bf16 a rounded copy for each product. Beside them stand the inputs of norms and nonlinearities,
and the softmax. Before the first trained weight a frozen model keeps nothing. Tests hold the sums against torch's. All
without dropout: its masks, and the dropped copies of what products read, come on top.
"""

from collections.abc import Mapping
from enum import Enum
from math import prod
from typing import Any, NamedTuple

from lora_repro.methods import AdapterConfig, LoRAConfig, LoRAPrefixEmbedConfig, MethodConfig, PrefixConfig
from lora_repro.models.arch import Arch, Site


class Products(str, Enum):
    """How products are computed; see precision.py."""

    fp32 = "fp32"
    bf16 = "bf16"
    """By hardware that multiplies in bf16."""
    rounded = "rounded"
    """In fp32, with operands and result rounded to bf16, where the hardware does not."""


class Batch(NamedTuple):
    """The inputs of a step, all of one length, and how they are computed."""

    size: int
    length: int
    products: Products = Products.bf16
    is_fused: bool = False
    """Attention is one kernel, which keeps no scores: on GPUs, and on CPUs where inputs may be long."""


class _Family(NamedTuple):
    """How the blocks of an architecture are computed, where they differ."""

    activation: str = "gelu"
    """Of the feed-forward layers, where config.json does not say."""
    pre_norm: bool = False
    """Norms stand before the sublayers, which read their output; else behind the sums."""
    softmax_in_fp32: bool = False
    is_rms: bool = False
    """RMSNorm keeps a second tensor where its weight is trained."""
    is_parallel: bool = False
    """Attention and feed-forward layers read the same stream."""
    has_fused: bool = True
    """transformers has a fused kernel for its attention."""
    reads_first: bool = False
    """The last block computes one position, keys and values apart (pooling.read_first_position)."""


_FAMILIES = {
    "bert": _Family(reads_first=True),
    "roberta": _Family(reads_first=True),
    "mpnet": _Family(has_fused=False),
    "deberta-v2": _Family(has_fused=False),
    "gpt2": _Family("gelu_new", pre_norm=True, softmax_in_fp32=True),
    "opt": _Family("relu", pre_norm=True, softmax_in_fp32=True),
    "gpt_neox": _Family(pre_norm=True, softmax_in_fp32=True, is_parallel=True),
    "llama": _Family("silu", pre_norm=True, softmax_in_fp32=True, is_rms=True),
}
_KEPT_BY = {"gelu_new": 4}
"""Tensors that a nonlinearity keeps which is no single kernel; those that are keep one."""


class _Tensor(NamedTuple):
    """What a layer reads."""

    name: str
    rows: int
    width: int
    flows: bool
    """Its gradient is wanted."""
    is_product: bool = False
    """It comes from a product, so it is rounded already."""


def kept(method: MethodConfig, arch: Arch, config: Mapping[str, Any], batch: Batch) -> dict[str, int]:
    """Returns the bytes of every tensor that is kept for the backward pass when it begins, by a name.

    Args:
        method: The method. Of those that are not trained yet the paper's description is followed.
        arch: The model's shapes, with its head.
        config: The keys of its config.json.
        batch: The inputs.
    """
    prefix = method if isinstance(method, PrefixConfig) else None
    prefix = method.prefix if isinstance(method, LoRAPrefixEmbedConfig) else prefix
    if prefix is not None:
        batch = batch._replace(length=batch.length + prefix.l_p + prefix.l_i)
    walk = _Walk(method, arch, config, _as_computed(arch, batch))
    stream = walk.embeddings(prefix is not None)
    for layer in range(arch.num_layers):
        stream = walk.block(layer, stream)
    walk.end(stream)
    return walk.bytes


def _as_computed(arch: Arch, batch: Batch) -> Batch:
    return batch._replace(is_fused=batch.is_fused and _FAMILIES[arch.model_type].has_fused)


def temporaries(arch: Arch, batch: Batch) -> int:
    """Returns the bytes that the widest part of one block needs while it is passed."""
    batch = _as_computed(arch, batch)
    tokens, size = batch.size * batch.length, 4 if batch.products is Products.fp32 else 2
    widest = max(site.d_out for site in arch.sites if site.layer is not None)
    scores = 0 if batch.is_fused else arch.num_heads * batch.length
    return tokens * (2 * size * max(widest, scores) + 2 * 4 * arch.d_model)


class _Walk:
    """Walks through a model in the order of its forward pass and notes what is kept."""

    def __init__(self, method: MethodConfig, arch: Arch, config: Mapping[str, Any], batch: Batch) -> None:
        self.arch, self.batch, self.family = arch, batch, _FAMILIES[arch.model_type]
        self.lora = method if isinstance(method, LoRAConfig) else None
        self.adapters = method if isinstance(method, AdapterConfig) else None
        self.unfrozen = {*method.unfrozen(arch)}
        self.adapted = {*arch.select(method.targets)} if isinstance(method, LoRAConfig) else set[Site]()
        self.adapted_modules = {site.module for site in self.adapted}
        self.tokens = batch.size * batch.length
        self.result = 4 if batch.products is Products.fp32 else 2
        self.operand = 2 if batch.products is Products.bf16 else 4
        given = config.get("hidden_act", config.get("activation_function"))
        self.activation = str(given if given is not None else self.family.activation)
        pre_norm = self.family.pre_norm and config.get("do_layer_norm_before", True)
        self.pre_norm = pre_norm
        self.sites: dict[int | None, dict[str, Site]] = {}
        for site in arch.sites:
            self.sites.setdefault(site.layer, {})[site.role] = site
        self.norms: dict[int | None, list[str]] = {}
        for name in arch.backbone:
            if name.endswith(".weight") and len(arch.parameters[name]) == 1:
                self.norms.setdefault(arch.layer_of(name), []).append(name.removesuffix(".weight"))
        self.bytes: dict[str, int] = {}

    def keep(self, name: str, numbers: int, size: int) -> None:
        """Notes a tensor; one that is kept twice counts once."""
        self.bytes[name] = numbers * size

    def is_trained(self, module: str) -> bool:
        """Tells whether anything of a layer is trained."""
        return (
            module in self.adapted_modules or f"{module}.weight" in self.unfrozen or f"{module}.bias" in self.unfrozen
        )

    def read(self, x: _Tensor, by: str) -> None:
        """Keeps what a product of a trained weight reads."""
        shared = self.batch.products is Products.fp32 or (self.batch.products is Products.bf16 and x.is_product)
        self.keep(x.name if shared else f"{x.name} for {by}", x.rows * x.width, self.operand)

    def copy(self, weight: str, numbers: int, is_trained: bool) -> None:
        """Keeps a weight where what is multiplied is a rounded copy of it."""
        if self.batch.products is Products.rounded or (self.batch.products is Products.bf16 and is_trained):
            self.keep(f"copy of {weight}", numbers, self.operand)

    def linear(self, site: Site, x: _Tensor) -> bool:
        """Passes a linear layer and the update of a matrix in it; returns whether the result's gradient is wanted."""
        weight = f"{site.module}.weight"
        trained = weight in self.unfrozen
        if x.flows:
            self.copy(weight, prod(self.arch.parameters[weight]), trained)
        if trained:
            self.read(x, site.module)
        if self.lora is not None and site in self.adapted:
            r = self.lora.r_of(site)
            if not self.lora.freeze_A:
                self.read(x, site.name)
            if x.flows:
                self.copy(f"{site.name} A", r * site.d_in, is_trained=True)
            self.copy(f"{site.name} B", r * site.d_out, is_trained=True)
            self.keep(f"{site.name} A x", r * x.rows, self.operand)
        return x.flows or self.is_trained(site.module)

    def norm(self, module: str, x: _Tensor) -> bool:
        """Passes a norm; returns whether a gradient of the result is wanted."""
        flows, is_rms = x.flows or self.is_trained(module), self.family.is_rms
        if x.flows if is_rms else flows:
            self.keep(x.name, x.rows * x.width, 4)
            self.keep(f"{module} statistics", x.rows * (1 if is_rms else 2), 4)
        if is_rms and f"{module}.weight" in self.unfrozen:
            self.keep(f"{x.name} normalised", x.rows * x.width, 4)
        return flows

    def adapter(self, layer: int, place: str, x: _Tensor) -> bool:
        """Passes an adapter where there is one; returns whether a gradient of the result is wanted."""
        method = self.adapters
        if method is None or place not in method.places or layer not in method.layers(self.arch):
            return x.flows
        name, b = f"{x.name} adapter", method.bottleneck
        if method.has_norm:
            self.keep(f"{name} norm", x.rows * x.width, 4)
        self.read(x._replace(is_product=not method.has_norm), name)
        for half in ("down", "up"):
            self.copy(f"{name} {half}", x.width * b, is_trained=True)
            self.keep(f"{name} before {half}", x.rows * b, self.result)
        return True

    def embeddings(self, has_prefix: bool) -> _Tensor:
        """Passes the embeddings; returns the stream that enters the first block."""
        (table,) = self.sites[None].values()
        inside = [name for name in self.unfrozen if self.arch.layer_of(name) is None]
        flows = has_prefix or any("emb" in name or ".wte" in name or ".wpe" in name for name in inside)
        if self.lora is not None and table in self.adapted:
            self.keep("embed A x", self.lora.r_of(table) * self.tokens, self.operand)
            flows = True
        x = _Tensor("embeddings", self.tokens, self.arch.d_model, flows)
        if not self.pre_norm and self.norms.get(None):
            flows = self.norm(self.norms[None][0], x)
        return _Tensor("stream 0", self.tokens, self.arch.d_model, flows)

    def block(self, layer: int, stream: _Tensor) -> _Tensor:
        """Passes a block; returns the stream behind it."""
        last = layer == self.arch.num_layers - 1
        rows = self.batch.size if last and self.family.reads_first else self.tokens
        norms, d = self.norms.get(layer, []), self.arch.d_model
        x = stream
        if self.pre_norm:
            x = _Tensor(f"{layer} x", stream.rows, d, self.norm(norms[0], stream))
        flows = self.attention(layer, x, rows)
        flows = self.adapter(layer, "attention", _Tensor(f"{layer} o", rows, d, flows, is_product=True))
        middle = stream if self.family.is_parallel else _Tensor(f"{layer} middle", rows, d, stream.flows or flows)
        m_flows = self.norm(norms[0 if not self.pre_norm else 1], middle) if norms else middle.flows
        m = _Tensor(f"{layer} m", rows, d, m_flows) if norms else middle
        mlp_flows = self.feed_forward(layer, m)
        mlp_flows = self.adapter(layer, "mlp", _Tensor(f"{layer} down", rows, d, mlp_flows, is_product=True))
        out_flows = m.flows if not self.pre_norm else middle.flows
        out = _Tensor(f"stream {layer + 1}", rows, d, out_flows or mlp_flows or flows)
        if not self.pre_norm and norms:
            summed = out._replace(name=f"{layer} sum")
            out = out._replace(flows=self.norm(norms[1], summed))
        return out

    def attention(self, layer: int, x: _Tensor, rows: int) -> bool:
        """Passes attention; returns whether a gradient of the result is wanted."""
        sites = self.sites[layer]
        first = x if rows == x.rows else x._replace(name=f"{x.name} first", rows=rows)
        q, k, v = (self.linear(sites[role], first if role == "q" else x) for role in "qkv")
        width = sites["q"].d_out
        if self.batch.is_fused and (q or k or v):
            for role, size in (
                ("q", rows * width),
                ("k", x.rows * sites["k"].d_out),
                ("v", x.rows * sites["v"].d_out),
            ):
                self.keep(f"{layer} {role}", size, self.result)
            self.keep(f"{layer} context", rows * width, self.result)
            self.keep(f"{layer} logsumexp", rows * self.arch.num_heads, 4)
        elif not self.batch.is_fused:
            self.scores(layer, rows, x.rows * width, rows * width, q, k, v)
        return self.linear(sites["o"], _Tensor(f"{layer} context", rows, width, q or k or v, is_product=True))

    def scores(self, layer: int, rows: int, keys: int, queries: int, q: bool, k: bool, v: bool) -> None:
        """Passes softmax(q k^T) v, whose operands are copies by head (of grouped k and v: repeated)."""
        numbers = rows * self.batch.length * self.arch.num_heads
        rounds = self.batch.products is Products.rounded or (
            self.batch.products is Products.bf16 and self.family.softmax_in_fp32
        )
        if k:
            self.keep(f"{layer} q", queries, self.operand)
        if q:
            self.keep(f"{layer} k", keys, self.operand)
        if q or k:
            self.keep(f"{layer} softmax", numbers, 4 if self.family.softmax_in_fp32 else self.result)
            self.keep(f"{layer} v", keys, self.operand)
            self.relative_positions(layer, rows)
        if v:
            self.keep(f"{layer} softmax, rounded" if rounds else f"{layer} softmax", numbers, self.operand)

    def relative_positions(self, layer: int, rows: int) -> None:
        """Passes DeBERTa's two scores with relative positions, from a table that is repeated for every example."""
        shape = self.arch.parameters.get("deberta.encoder.rel_embeddings.weight")
        if shape is None:
            return
        self.keep(f"{layer} q, again", rows * self.arch.d_model, self.operand)
        for score in ("c2p", "p2c"):
            self.keep(f"{layer} {score}", rows * self.arch.num_heads * shape[0], self.result)
            self.keep(f"{layer} positions of {score}", self.batch.size * shape[0] * self.arch.d_model, self.operand)

    def feed_forward(self, layer: int, m: _Tensor) -> bool:
        """Passes the feed-forward layers; returns whether a gradient of the result is wanted."""
        sites = self.sites[layer]
        up, width = self.linear(sites["up"], m), sites["up"].d_out
        numbers, inner = m.rows * width, f"{layer} inner"
        gate = self.linear(sites["gate"], m) if "gate" in sites else False
        if "gate" in sites:
            for name, wanted in (("gate", gate), ("up", gate), ("activated gate", up)):
                if wanted:
                    self.keep(f"{layer} {name}", numbers, self.result)
        elif up and self.activation == "relu":
            self.keep(inner, numbers, self.result)  # its output, which is what comes next
        elif up:
            for index in range(_KEPT_BY.get(self.activation, 1)):
                self.keep(f"{layer} activation {index}", numbers, self.result)
        return self.linear(sites["down"], _Tensor(inner, m.rows, width, up or gate, is_product=True))

    def end(self, stream: _Tensor) -> None:
        """Passes what stands behind the blocks: a last norm, and the head or the vocabulary."""
        if self.pre_norm and self.norms.get(None):
            stream = stream._replace(flows=self.norm(self.norms[None][-1], stream), name="last")
        if not self.arch.is_decoder:
            if self.batch.products is Products.fp32:  # the head reads a view of it
                self.keep("last", stream.rows * stream.width, 4)
            for name in self.arch.parameters if stream.flows else ():
                if self.arch.is_head(name) and name.endswith(".weight"):
                    self.copy(name, prod(self.arch.parameters[name]), is_trained=True)
        elif self.arch.head_modules:
            self.read(stream, "score")
        elif stream.flows:
            self.keep("last", stream.rows * stream.width, 4)
            (table,) = self.sites[None].values()
            self.keep("log-likelihoods", self.batch.size * table.d_in, 4)
