"""Pages that are one file: a shell, and a body, style and script of the page's own. They need no network."""

import html
from collections.abc import Mapping
from pathlib import Path

PAGES = Path(__file__).parent / "page"


def filled(name: str, title: str, command: str, data: str, source: str = "", **parts: str) -> str:
    """Returns a page.

    Its JSON holds no `<`, and a policy in the shell forbids all that would load anything.

    Args:
        name: Of its files: page/NAME.html, .css and .js.
        title: What a browser calls it.
        command: What made it.
        data: Its JSON.
        source: What else the first line says, as text.
        parts: What stands in its body for @@NAME@@, as markup.
    """
    body, style, script = (_read(f"{name}.{ending}") for ending in ("html", "css", "js"))
    first_line = {"COMMAND": html.escape(command, quote=False), "SOURCE": html.escape(source, quote=False)}
    shell = {**first_line, "TITLE": title, "STYLE": style, "SCRIPT": script, "DATA": data.replace("<", "\\u003c")}
    return _fill(_read("shell.html"), {**shell, "BODY": _fill(body, parts)})


def _read(name: str) -> str:
    return (PAGES / name).read_text(encoding="utf-8")


def _fill(template: str, parts: Mapping[str, str]) -> str:
    """Puts parts for @@NAME@@: split once, so that nothing inside a part is a placeholder."""
    before, *rest = template.split("@@")
    return before + "".join(parts[piece] if index % 2 == 0 else piece for index, piece in enumerate(rest))
