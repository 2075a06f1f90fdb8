"""Loads the tokenizer of a model."""

import string
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lora_repro.errors import MissingInputError
from lora_repro.models.arch import ModelConfig, is_counted
from lora_repro.models.declared import only, read_config, reading, tokenizer_names
from lora_repro.models.inputs import folder_of
from lora_repro.models.json_files import read_keys

GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""What tokenizer_config.json names if tokenizer.json is all that is needed."""
SPLIT_ANEW = ("qwen2", "gemma3_text")
"""Counted architectures whose class in transformers splits as the makers' own tokenizer, whatever tokenizer.json says.
"""


def load_tokenizer(config: ModelConfig, model_path: str | None, cache_dir: str) -> PreTrainedTokenizerBase:
    """Loads the model's own tokenizer; the random tiny one has a vocabulary of letters.

    Raises:
        MissingInputError: If weights are missing, or the package that reads this kind of tokenizer.
    """
    folder = folder_of(config, model_path, cache_dir)
    if folder is None:
        letters = string.ascii_lowercase
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
        return BertTokenizer(vocab={token: position for position, token in enumerate(vocabulary)})
    only_spm = (folder / "spm.model").is_file() and not (folder / "tokenizer.json").is_file()
    if only_spm and find_spec("sentencepiece") is None:
        raise MissingInputError(
            f"{folder / 'spm.model'} is read by a package that is not here: sentencepiece.\n"
            "Install it: pip install 'lora_repro[deberta]'"
        )
    names = tokenizer_names(config, folder)
    read_config(folder / "config.json", config.config)  # the tokenizer's class reads it too: report its faults first
    with reading(f"the tokenizer in {folder}"), only(folder, names, config.config) as files:
        tokenizer = _tokenizer_class(files, config.config).from_pretrained(files, padding_side="right")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # never read: the mask leaves padding out
    if tokenizer.vocab_size > config.config["vocab_size"]:  # added tokens may be beyond it, if no text has them
        raise too_large(tokenizer, config, tokenizer.vocab_size - 1)
    return tokenizer


def _tokenizer_class(folder: Path, config: Mapping[str, Any]) -> Any:
    """Returns what reads a tokenizer: of a folder that names no class of its own, tokenizer.json as it is.

    transformers would take the class that it knows for the architecture, Qwen2's for any Qwen 2, whose splitting need
    not be that of tokenizer.json: its tokens would be other ones, or none.
    """
    path = folder / "tokenizer_config.json"
    named = read_keys(path).get("tokenizer_class") if path.is_file() else None
    is_generic = named in GENERIC_TOKENIZERS and (folder / "tokenizer.json").is_file()
    keeps_class = is_counted(config) and config.get("model_type") not in SPLIT_ANEW
    return PreTrainedTokenizerFast if is_generic and not keeps_class else AutoTokenizer


def too_large(tokenizer: PreTrainedTokenizerBase, config: ModelConfig, token: int) -> MissingInputError:
    """Says that a tokenizer has tokens for which the model's embedding has no row."""
    return MissingInputError(
        f"model={config.name}: the tokenizer knows {len(tokenizer)} tokens, the model's embedding has "
        f"{config.config['vocab_size']} rows: none for {tokenizer.convert_ids_to_tokens(token)!r}, token {token}.\n"
        "Give the tokenizer that was saved with these weights; if tokens were added to it, save the weights after "
        f"model.resize_token_embeddings({len(tokenizer)})."
    )
