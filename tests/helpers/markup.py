"""Reads LaTeX and HTML tables as strictly as a typesetter and a browser would, and gives back their cells."""

import re
from html.parser import HTMLParser
from typing import NamedTuple

RULES = ("toprule", "midrule", "bottomrule")
TOKEN = re.compile(r"\\\\|\\[a-zA-Z]+\*?|\\.|[{}$&%#_^~\n]|[^\\{}$&%#_^~\n]+", re.DOTALL)


def tex_rows(text: str) -> list[list[str]]:
    """Returns the cells of a booktabs table, as they are written.

    Raises:
        AssertionError: If braces, math or environments do not match, a special is not escaped, a character is none that
            pdflatex knows, a bracket or star begins a row, or rows differ in their number of cells.
    """
    assert text.isascii(), [character for character in text if ord(character) > 127]
    depth, is_math = 0, False
    for token in TOKEN.findall(text):
        depth += (token == "{") - (token == "}")
        assert depth >= 0, "a brace closes that none opened"
        is_math ^= token == "$"
        assert token not in ("%", "#", "~") and (is_math or token not in ("_", "^")), f"{token} is not escaped"
        assert not is_math or token not in ("&", "\n"), "math does not end"
        assert is_math or not re.search("[<>|]", token), f"{token}: printed as another character"
    assert depth == 0 and not is_math
    nested = []
    for kind, name in re.findall(r"\\(begin|end){(\w+)}", text):
        if kind == "begin":
            nested.append(name)
        else:
            assert nested.pop() == name
    assert not nested and [text.count(f"\\{rule}") for rule in RULES] == [1, 1, 1]
    columns, inside = re.search(r"\\begin{tabular}{([lr]+)}\n(.*)\\end{tabular}", text, re.DOTALL).groups()  # type: ignore
    head, body = inside.removeprefix("\\toprule\n").split("\\midrule\n")
    rows = []
    for line in [*head.splitlines(), *body.removesuffix("\\bottomrule\n").splitlines()]:
        assert line.endswith(r" \\") and not line.startswith(("[", "*"))
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))])
        assert len(rows[-1]) == len(columns), f"{len(rows[-1])} cells in {len(columns)} columns: {line}"
    assert all(text.count(part) == 1 for part in (r"\caption{", r"\label{tab:"))
    return rows


class HtmlTable(NamedTuple):
    """What a browser shows."""

    caption: str
    grid: list[list[str]]
    below: str


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.caption, self.below = "", ""
        self.grid: list[list[str]] = []
        self.tables = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("table", "caption", "thead", "tbody", "tr", "th", "td", "p", "br", "code") and not attrs, tag
        self.tables += tag == "table"
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "tr":
            self.grid.append([])
        if tag in ("th", "td"):
            assert self.open[:2] == ["table", "thead" if tag == "th" else "tbody"]
            self.grid[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "caption" in self.open:
            self.caption += data
        elif self.open[-1:] in (["th"], ["td"]):
            self.grid[-1][-1] += data
        elif "p" in self.open:
            self.below += data
        else:
            assert not data.strip()


def html_table(text: str) -> HtmlTable:
    """Returns the one table of a page.

    Raises:
        AssertionError: If tags are unknown or do not match, there are several tables, or a text is not ASCII.
    """
    assert text.isascii()
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open and reader.tables == 1
    return HtmlTable(reader.caption, reader.grid, reader.below)
