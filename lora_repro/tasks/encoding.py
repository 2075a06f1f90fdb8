"""A task's splits as tensors of tokens, made once per process where they are small."""

import json
import logging
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lora_repro.config.identity import id_fields
from lora_repro.config.schema import Dtype, Run
from lora_repro.config.settings import Settings
from lora_repro.models.tokenizer import load_tokenizer
from lora_repro.tasks.base import permuted, subset
from lora_repro.tasks.batches import padded_length
from lora_repro.tasks.notices import of_lengths
from lora_repro.tasks.targets import Example

if TYPE_CHECKING:
    from lora_repro.tasks.objectives.base import Objective

log = logging.getLogger(__name__)


class References(NamedTuple):
    """The texts of all examples of a split of which some have several: those of the first, of the second and so on."""

    targets: Int[Tensor, "texts longest"]
    """The tokens of each."""
    counts: Int[Tensor, " n"]
    """How many an example has."""

    @property
    def owners(self) -> Int[Tensor, " texts"]:
        """Returns of which example each is."""
        return torch.arange(len(self.counts)).repeat_interleave(self.counts)


class Encoded(NamedTuple):
    """One split: tokens padded to its longest example, from which a batch is cut to its own longest."""

    examples: list[Example]
    inputs: dict[str, Int[Tensor, "n seq"]]
    lengths: Int[Tensor, " n"]
    targets: Tensor
    """A row an example: its class, its score, or the tokens to be written."""
    objective: "Objective"
    """What the model is asked."""
    references: References | None = None
    """Over which texts the loss is, where an example has more than the one in `targets`."""
    cut: Int[Tensor, " n"] | None = None
    """How many tokens each input lost as it was too long, where the objective counts them."""
    over: int = 0
    """How many inputs are cut, as they are longer than train.max_length."""
    sha256: str | None = None
    """Of the whole split as it was read, where the task's digest does not cover it."""

    def batch(self, indices: list[int], device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the model's inputs and the targets of these examples, of the length that `padded_length` gives."""
        longest = padded_length(int(self.lengths[indices].max()))  # or the split's longest, where slicing ends
        inputs = {name: values[indices, :longest].to(device, non_blocking=True) for name, values in self.inputs.items()}
        return inputs, self.targets[indices].to(device, non_blocking=True)

    def loss(self, model: nn.Module, indices: list[int], dtype: Dtype, device: torch.device) -> Float[Tensor, ""]:
        """Returns the loss of a batch of these examples, which training minimises."""
        return self.objective.loss(model, self, indices, dtype, device)

    def outputs(
        self, model: nn.Module, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, "batch width"]:
        """Returns the numbers that decide the answers to these examples: logits, scores or log-likelihoods."""
        return self.objective.outputs(model, self, indices, dtype, device)

    def predict(
        self, model: nn.Module, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, "batch width"]:
        """Returns a row for each of these examples, from which the objective reads loss and answer."""
        return self.objective.predict(model, self, indices, dtype, device)


READ_BY_OBJECTIVES = ("max_length", "label_smoothing", "packing")
"""The settings of training that objectives read, in `encode` or later."""
KEPT_BYTES = 64 * 2**20
"""Up to so many bytes of tokens stay in memory beside those of the last task: `movies` has 16 MiB of a model."""

_encoded: dict[str, dict[str, Encoded]] = {}
"""The splits of tasks, the one that was asked for last at the end: the runs of a sweep share them."""


def encode(run: Run, settings: Settings) -> dict[str, Encoded]:
    """Reads, subsets and tokenises the splits of a run's task; permutes the training targets where it says so.

    Raises:
        MissingInputError: If data or tokenizer are missing or damaged, or the model has no embedding for a token.
        InputError: What the task's objective refuses.
    """
    paths = settings.paths
    seed = run.seed if run.task.permute_labels else None
    shown = run.method.demonstrations
    asked = [shown, run.seed] if shown is not None else None  # which are drawn by the seed
    trained = [getattr(run.train, key) for key in READ_BY_OBJECTIVES]
    question = [id_fields(run.task), id_fields(run.model), trained, seed, asked, run.method.added_tokens]
    key = json.dumps([*question, paths.data, paths.model, paths.cache])
    found = _encoded.pop(key, None)
    if found is None:
        whole = run.task.load(paths.data, paths.cache)
        read = {split: run.task.sha256_of(whole, split) for split in run.task.unchecked}
        splits = subset(whole, run.task)
        notices = run.task.notices(splits)
        if seed is not None:
            splits["train"] = permuted(splits["train"], seed)
        tokenizer = load_tokenizer(run.model, paths.model, paths.cache)
        _forget_all_but(KEPT_BYTES)
        encoded = run.task.objective.encode(tokenizer, run, splits)
        over, longest = _cut(encoded, tokenizer, run)
        found = {name: split._replace(sha256=read.get(name), over=over[name]) for name, split in encoded.items()}
        if notices or any(over.values()):
            lengths = {name: split.lengths.tolist() for name, split in found.items()}
            for line in [*notices, of_lengths(lengths, over, longest, run.train.max_length)]:
                log.info("%s: %s", run.task.name, line)
    _encoded[key] = found
    return found


UNCUT = 16
"""A prompt that is cut, letter by letter, ends fewer tokens than this below what it may have."""


def _cut(encoded: dict[str, Encoded], tokenizer: PreTrainedTokenizerBase, run: Run) -> tuple[dict[str, int], int]:
    """Returns how many inputs of each split were cut, and the tokens of the longest before it was.

    Those that may have been cut are tokenised again, uncut.
    """
    over, longest = {}, 0
    for name, split in encoded.items():
        if split.cut is not None:
            over[name], longest = int((split.cut > 0).sum()), max(longest, int((split.lengths + split.cut).max()))
            continue
        bound = run.train.max_length - split.objective.reserved
        lengths = split.lengths.tolist()
        at_bound = [e for e, length in zip(split.examples, lengths, strict=True) if length > bound - UNCUT]
        wholes = split.objective.whole_lengths(tokenizer, run, at_bound) if at_bound else []
        over[name] = sum(length > bound for length in wholes)
        longest = max(longest, *lengths, *wholes)
    return over, longest


def _forget_all_but(size: int) -> None:
    """Forgets the splits that were asked for longest ago until those left have at most so many bytes."""
    sizes = {key: sum(map(_bytes, splits.values())) for key, splits in _encoded.items()}
    for key in [*_encoded]:
        if sum(sizes[left] for left in _encoded) > size:
            del _encoded[key]


def _bytes(split: Encoded) -> int:
    return sum(t.nbytes for t in (*split.inputs.values(), split.lengths, split.targets, *(split.references or ())))
