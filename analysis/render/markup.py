"""Tables in LaTeX and HTML, laid out by pandas: all texts are escaped here, and there is a grid."""

import html as standard
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from analysis.render.printed import PrintedTable

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "—": r"\textemdash{}", "•": r"\textbullet{}"},
    **{"‖": r"$\Vert$", "Δ": r"$\Delta$", "ᵀ": r"\textsuperscript{T}", "±": r"$\pm$", "≤": r"$\leq$"},
}
"""What LaTeX takes for commands, prints as another character in its oldest fonts, or does not know."""

NUMBER = re.compile(r"[-+]?\d[\d,.]*(M| %| ± [\d.]+)?")
BULLET = "• "
LONGEST = 70
"""Characters of a cell that stay in one line of LaTeX."""


def latex(table: PrintedTable) -> str:
    """Writes a table environment that needs booktabs alone; what stands above and below the grid comes as notes."""
    text = _laid_out(table, lambda cell: _guarded(_coded(cell, _latex, _latex_code))).to_latex(
        hrules=True,
        caption=_latex(table.title),
        label=f"tab:{_label(table.title)}",
        column_format=_columns(table.grid),
        position_float="centering",
    )
    body, end, _ = text.rpartition("\\end{table}")
    notes = "".join(f"{_coded(line, _latex, _latex_code)}\\par\n" for part in _paragraphs(table) for line in part)
    return f"{body}\\par\\medskip\n{{\\footnotesize\\raggedright\n{notes}}}\n{end}" if notes else body + end


def html(table: PrintedTable) -> str:
    """Writes a table and below it paragraphs, to be put into a page; ASCII alone, whatever encoding that page has."""
    laid_out = _laid_out(table, lambda cell: _coded(cell, standard.escape, _html_code)).set_caption(
        standard.escape(table.title)
    )
    parts = [laid_out.to_html(exclude_styles=True).rstrip()]
    for paragraph in _paragraphs(table):
        lines = "<br>\n".join(_coded(line, standard.escape, _html_code) for line in paragraph)
        parts.append(f"<p>{lines}</p>")
    return "\n".join(parts).encode("ascii", "xmlcharrefreplace").decode()


def _laid_out(table: PrintedTable, escape: Callable[[str], str]) -> "Styler":
    """Hands the grid to pandas, each text escaped already: pandas leaves headers, captions and < as they are."""
    from pandas import DataFrame

    header, *body = [[escape(cell) for cell in line] for line in table.grid]
    return DataFrame(body, columns=header, dtype=object).style.hide(axis="index")


def _paragraphs(table: PrintedTable) -> Iterable[list[str]]:
    for paragraph in (table.above, *table.below):
        if paragraph:
            yield [re.sub("^- ", BULLET, line).strip() for line in paragraph]


def _coded(line: str, of_text: Callable[[str], str], of_code: Callable[[str], str]) -> str:
    """Writes a line in which code stands between backticks."""
    parts = re.split("`([^`]*)`", line)
    return "".join(of_code(part) if number % 2 else of_text(part) for number, part in enumerate(parts))


def _latex(text: str) -> str:
    """Escapes a text: its specials, hyphens that would become a dash, and those that are a minus."""
    return re.sub(r"(?<![\w}$.-])-(?=\.?\d)", "$-$", _verbatim(text))


def _latex_code(code: str) -> str:
    straight = _verbatim(code).replace("'", r"\textquotesingle{}")
    return f"\\texttt{{{straight}}}"


def _html_code(code: str) -> str:
    return f"<code>{standard.escape(code)}</code>"


def _verbatim(text: str) -> str:
    return re.sub("-(?=-)", "-{}", text.translate(str.maketrans(SPECIAL)))


def _guarded(cell: str) -> str:
    """Keeps a bracket or star from being read as an argument of the end of the line before it."""
    return f"{{}}{cell}" if cell.startswith(("[", "*")) else cell


def _is_of_numbers(column: Iterable[str]) -> bool:
    """Returns whether a column holds numbers alone, under a header."""
    _, *cells = column
    return any(cells) and all(not cell or NUMBER.fullmatch(cell) for cell in cells)


def _columns(grid: Sequence[Sequence[str]]) -> str:
    """Returns LaTeX's column types: numbers to the right, and paragraphs where a cell is too long for a line."""
    columns = list(zip(*grid, strict=True))
    long = [max(map(len, column)) > LONGEST for column in columns]
    paragraph = f"p{{{0.75 / max(1, sum(long)):.2f}\\linewidth}}"
    return "".join(
        paragraph if is_long else "r" if _is_of_numbers(column) else "l"
        for column, is_long in zip(columns, long, strict=True)
    )


def _label(title: str) -> str:
    """Names a table by what stands before the colon of its title: table-6, leaderboard."""
    return re.sub(r"[^a-z0-9]+", "-", re.split("[:(]", title)[0].lower()).strip("-")
