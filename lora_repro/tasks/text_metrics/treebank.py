"""The words that METEOR, ROUGE-L and CIDEr of the E2E challenge compare: Stanford's, in lower case, no punctuation."""

import subprocess
from collections.abc import Iterable, Sequence
from functools import lru_cache

from lora_repro.errors import RunFailedError
from lora_repro.tasks.text_metrics import tools
from lora_repro.tasks.text_metrics.given import in_one_line

TIMEOUT_S = 600
"""5,000 texts take about 2 s."""


def tokenized(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Returns all texts as pycocoevalcap's PTBTokenizer returns them: words between single spaces, none punctuation.

    Raises:
        MissingInputError: If Java or pycocoevalcap is missing.
        RunFailedError: If the tokenizer fails, or returns another number of texts.
    """
    counts = [len(texts) for texts in references]
    found = iter(_tokenized((*predictions, *(text for texts in references for text in texts))))
    return [next(found) for _ in predictions], [[next(found) for _ in range(count)] for count in counts]


@lru_cache(maxsize=2)
def _tokenized(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Tokenises in one process; the last texts are kept for the next metric, as a start of Java takes a second."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    jar = tools.jar(tools.TOKENIZER)
    arguments = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    given = "".join(f"{in_one_line(text)}\n" for text in texts).encode(
        errors="replace"
    )  # JSON can hold half a character
    done = subprocess.run(
        tools.command(arguments, "the tokenizer of METEOR, ROUGE-L and CIDEr"),
        input=given, capture_output=True, timeout=TIMEOUT_S, check=False, start_new_session=True,
    )  # fmt: skip
    lines = done.stdout.decode().split("\n")
    if done.returncode or len(lines) != len(texts) + 1 or lines[-1]:
        raise RunFailedError(
            f"{jar.name}: made {len(lines) - 1} lines of {len(texts)} texts (exit code {done.returncode}).\n"
            + _last(done.stderr.decode(errors="replace").splitlines())
        )
    return tuple(" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS) for line in lines[:-1])


def _last(lines: Iterable[str]) -> str:
    return "\n".join([*lines][-5:])
