"""Tokens around the input of models that are read from transformers' classes (model=local), against those classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from helpers.prefixes import batch, examples
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.training.train import build

CPU = torch.device("cpu")
DECODERS = ("qwen3", "mistral", "gemma", "gemma2", "phi", "mixtral", "qwen2_moe")
ENCODERS = ("distilbert", "electra", "xlm-roberta", "modernbert")


def head_of(theirs: Any, states: Tensor) -> Tensor:
    """Applies an untouched classifier behind the last token, or at the input's first, which is the fifth."""
    family = theirs.config.model_type
    if family == "distilbert":
        return theirs.classifier(torch.relu(theirs.pre_classifier(states[:, 4])))
    if family == "modernbert":
        return theirs.classifier(theirs.head(states[:, 4]))
    return theirs.classifier(states[:, 4:]) if family in ENCODERS else theirs.score(states[:, -1])


@pytest.mark.parametrize("name", ["prefix_embed", "prefix_layer"])
@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_a_padded_batch_is_the_whole_row_alone(name: str, family: str, tiny: Compose, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", family, words_tokenizer(pad_token="<unk>"))
    local = ("model=local", f"paths.model={folder}", "preset@train=tiny_llama", "train.dtype=fp32")
    resolved = resolve(tiny(*local, f"method={name}", "method.l_p=4", "method.l_i=2"))
    ours: Any = build(resolved, CPU).eval()
    ids, mask = batch(rows=50)
    found = ours(input_ids=ids, attention_mask=mask).logits
    tolerance = 3e-5 * found.abs().max().item()
    alone = [ours(input_ids=row, attention_mask=torch.ones_like(row)).logits for row in examples(ids, mask)]
    assert torch.allclose(found, torch.cat(alone), atol=tolerance)
    if name == "prefix_embed":
        theirs: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        body, rows = theirs.base_model, []
        for row in examples(ids, mask):
            front, behind = ours.prefix.embed[None, :4], ours.prefix.embed[None, 4:]
            whole = torch.cat([front, body.get_input_embeddings()(row), behind], 1)
            shown = torch.ones(1, whole.shape[1]).long()
            rows.append(head_of(theirs, body(inputs_embeds=whole, attention_mask=shown).last_hidden_state))
        assert torch.allclose(found, torch.cat(rows), atol=tolerance)
    for refused in (("method=prefix_layer", "method.form=key_value", "method.l_i=0"), ("method=llama_adapter",)):
        with pytest.raises(InputError, match="needs attention in which keys may have no position"):
            resolve(tiny(*local, *refused))
