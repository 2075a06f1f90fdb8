"""Reads files that hold a text a line."""

from pathlib import Path

from lora_repro.errors import InputError, describe_os_error, shown

TRAILING = (
    "An empty line at the end is one example more, with an empty text and no reference. (So is a single newline at the "
    "end for GenerationEval's eval.py: METEOR then ends with 'test and reference not same length', and TER counts a 1.)"
)
"""What befell users of the authors' scripts: github.com/microsoft/LoRA, issue 138."""


def content_of(path: Path, may_be_blank: bool = False) -> str:
    """Returns what a file holds, without a byte order mark.

    Args:
        path: The file.
        may_be_blank: Whether it may hold nothing but white space: lines that are all empty.

    Raises:
        InputError: If it cannot be read, is empty, or is not UTF-8; it names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(describe_os_error(error)) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        around = shown(content[max(0, error.start - 20) : error.start + 10])
        raise InputError(f"{path}, line {line}: is not UTF-8 (found: {around}).\nSave the file as UTF-8.") from None
    if not text.strip() and not (may_be_blank and text):
        raise InputError(f"{path}: the file is empty{' but for white space' if text else ''}.")
    return text


def lines_of(path: Path, may_be_blank: bool = False) -> list[str]:
    r"""Returns the lines of a file without white space at their ends; empty ones too.

    A line ends at \n or \r\n alone: texts may hold other characters that Python takes for line ends. A newline at the
    end of the file ends the last line, and begins none.

    Raises:
        InputError: As `content_of`.
    """
    lines = content_of(path, may_be_blank).split("\n")
    return [line.strip() for line in (lines if lines[-1] else lines[:-1])]
