"""Writes texts after prompts by beam search, of which greedy decoding is the case of one beam.

The rules are those of the paper's code (its gpt2_beam.py) without its fault: here a batch is written as one by one.
Writing stops where nothing better can come.
- A text of n tokens, its end among them, counts sum log p / n^length_penalty, be it finished or cut at max_new_tokens.
- Only as many beams are kept as are asked for, finished ones included: these leave, and those that go on are extended.
- A token that would repeat an n-gram of the written text (the prompt's do not count) has probability 0, and the others
  are normalised without it.

transformers.generate differs in all three: it keeps twice the candidates, bans n-grams of the prompt too, and does not
normalise again.
"""

import inspect
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from lora_repro.config.schema import Dtype
from lora_repro.models.precision import products
from lora_repro.tasks.objectives.language import NO_TOKEN, OutputLayer


class Decoding(NamedTuple):
    """How a text is written."""

    max_new_tokens: int
    """Writing stops after so many tokens."""
    end: int
    """The token that ends a text."""
    num_beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    """0 lets everything be repeated."""


class _Reader:
    """A language model that has read prompts into a cache, and reads one token at a time behind them.

    Args:
        model: A language model of transformers.
        prompts: Padded on the right.
        lengths: Tokens of each prompt.
        dtype: Precision of the products.
    """

    def __init__(self, model: Any, prompts: Int[Tensor, "n seq"], lengths: Int[Tensor, " n"], dtype: Dtype) -> None:
        self.body, self.dtype, self.device = model.base_model, dtype, prompts.device
        self.output = OutputLayer(model)
        self.cache = DynamicCache(config=model.config)
        self.takes_positions = "position_ids" in inspect.signature(type(self.body).forward).parameters
        longest = int(lengths.max())
        # padded on the left: the last token of each prompt, behind which a text goes on, is the last of its row
        places = torch.arange(longest, device=self.device) - (longest - lengths)[:, None]
        self.mask = (places >= 0).long()
        self.prompts, self.positions = prompts.gather(1, places.clamp(min=0)), places.clamp(min=0)

    def read_prompts(self) -> Float[Tensor, "n vocabulary"]:
        """Returns the logits of each text's first token."""
        return self._read(self.prompts, self.positions)

    def read(self, parents: Int[Tensor, " rows"], tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocabulary"]:
        """Returns the logits of what follows one more token.

        Args:
            parents: Which of the texts that were read last each of the texts goes on from.
            tokens: What is read behind it.
        """
        if len(parents) != len(self.mask) or (parents != torch.arange(len(parents), device=self.device)).any():
            self.cache.batch_select_indices(parents)
            self.mask, self.positions = self.mask[parents], self.positions[parents]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(parents), 1)], 1)
        return self._read(tokens[:, None], self.positions[:, -1:] + 1)

    def _read(self, tokens: Tensor, positions: Tensor) -> Float[Tensor, "rows vocabulary"]:
        self.positions = positions
        given = {"position_ids": positions} if self.takes_positions else {}
        with products(self.dtype, self.device):
            hidden = self.body(
                input_ids=tokens, attention_mask=self.mask, past_key_values=self.cache, use_cache=True, **given
            ).last_hidden_state
        return self.output.logits(hidden[:, -1])


def write(
    model: nn.Module, prompts: Int[Tensor, "n seq"], lengths: Int[Tensor, " n"], how: Decoding, dtype: Dtype
) -> Int[Tensor, "n max_new_tokens"]:
    """Returns the best text after each prompt, with its end if it has one, padded with NO_TOKEN.

    An example leaves the batch as soon as none of its beams could still become better than its best text.

    Args:
        model: A language model of transformers, in evaluation mode.
        prompts: Padded on the right.
        lengths: Tokens of each prompt.
        how: How to write.
        dtype: Precision of the products.
    """
    reader = _Reader(model, prompts, lengths, dtype)
    device, longest, penalty = prompts.device, how.max_new_tokens, how.length_penalty
    texts = torch.full((len(prompts), longest), NO_TOKEN, device=device)
    best = torch.full((len(prompts),), -torch.inf, device=device)
    going = torch.arange(len(prompts), device=device)  # the examples that are not done
    sums = torch.zeros(len(prompts), 1, device=device)  # log p of each beam
    written = texts.new_empty(len(prompts), 1, 0)
    logits = reader.read_prompts()
    for n in range(1, longest + 1):
        examples, beams = sums.shape
        ban_repeated(logits, written.flatten(0, 1), how.no_repeat_ngram_size)
        sums, parents, tokens = _extended(sums, logits, how.num_beams)
        before = written.gather(1, parents[:, :, None].expand(-1, -1, n - 1))
        written = torch.cat([before, tokens[:, :, None]], 2)
        ended = tokens == how.end
        scores, which = (sums / n**penalty).masked_fill(~(ended | (n == longest)), -torch.inf).max(1)
        better = scores > best[going]
        best[going[better]] = scores[better]
        texts[going[better], :n] = written[better, which[better]]
        sums = sums.masked_fill(ended, -torch.inf)
        # log p only falls, so a text counts no more than its beam would at the length that divides it most
        goes_on = sums.max(1).values / (longest if penalty > 0 else n) ** penalty > best[going]
        if n == longest or not goes_on.any():
            break
        rows = torch.arange(examples, device=device)[:, None] * beams + parents
        logits = reader.read(rows[goes_on].flatten(), tokens[goes_on].flatten())
        going, sums, written = going[goes_on], sums[goes_on], written[goes_on]
    return texts


def ban_repeated(logits: Float[Tensor, "rows vocabulary"], written: Int[Tensor, "rows n"], size: int) -> None:
    """Sets the logits, in place, of tokens that would complete an n-gram a second time to -inf; size 0: of none."""
    n = written.shape[1]
    if not size or n < size:
        return
    grams = written.unfold(1, size, 1)
    repeats = (grams[:, :, :-1] == written[:, None, n - size + 1 :]).all(2)
    row, at = repeats.nonzero(as_tuple=True)
    logits[row, grams[row, at, -1]] = -torch.inf


def _extended(
    sums: Float[Tensor, "examples beams"], logits: Float[Tensor, "rows vocabulary"], num_beams: int
) -> tuple[Float[Tensor, "examples kept"], Int[Tensor, "examples kept"], Int[Tensor, "examples kept"]]:
    """Returns the likeliest texts that are one token longer: their log p, the beam that they extend, and the token."""
    kept = min(num_beams, logits.shape[1])
    log_p, tokens = logits.log_softmax(1).topk(kept)
    log_p = log_p.nan_to_num(nan=-torch.inf)  # where every token is banned
    sums = (sums.flatten()[:, None] + log_p).view(len(sums), -1)
    sums, at = sums.topk(min(num_beams, sums.shape[1]))
    return sums, at // kept, tokens.view(len(sums), -1).gather(1, at)
