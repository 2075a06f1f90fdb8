"""HTML as elements, so that every text is escaped where it is written."""

import re
from collections.abc import Iterable
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

CODE = re.compile(r"(`[^`]*`|\*\*[^*]*\*\*)")


def tag(name: str, *children: Element | str, **attributes: str) -> Element:
    """Returns an element.

    Args:
        name: Its tag.
        children: Elements and texts, in their order.
        attributes: `class_` for class, `aria_label` for aria-label.
    """
    made = Element(name, {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()})
    last: Element | None = None
    for child in children:
        if not isinstance(child, str):
            made.append(child)
            last = child
        elif last is None:
            made.text = (made.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    return made


def words(text: str) -> list[Element | str]:
    """Returns a line of a table's text: code between backticks, and what stands between double asterisks strong."""
    found: list[Element | str] = []
    for part in CODE.split(text):
        if len(part) > 1 and part[0] == part[-1] == "`":
            found.append(tag("code", part[1:-1]))
        elif len(part) > 3 and part.startswith("**") and part.endswith("**"):
            found.append(tag("strong", part[2:-2]))
        elif part:
            found.append(part)
    return found


def paragraph(text: str, **attributes: str) -> Element:
    """Returns a paragraph of a line."""
    return tag("p", *words(text), **attributes)


def paragraphs(lines: Iterable[str]) -> list[Element]:
    """Returns lines as paragraphs and lists: `- ` begins an entry, two spaces before it one of an inner list."""
    found: list[Element] = []
    for line in lines:
        bare = line.strip()
        if not bare:
            continue
        if not bare.startswith("- "):
            if line.startswith("  ") and found and found[-1].tag == "ul":
                found[-1][-1].append(tag("p", *words(bare)))
            else:
                found.append(paragraph(bare))
            continue
        entry = tag("li", *words(bare[2:]))
        if not found or found[-1].tag != "ul":
            found.append(tag("ul"))
        if line.startswith("  ") and len(found[-1]):
            outer = found[-1][-1]
            if not len(outer) or outer[-1].tag != "ul":
                outer.append(tag("ul"))
            outer[-1].append(entry)
        else:
            found[-1].append(entry)
    return found


def markup(element: Element) -> str:
    """Writes an element as HTML."""
    return ElementTree.tostring(element, encoding="unicode", method="html")
