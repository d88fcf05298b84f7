"""HTML and SVG as text in which everything is escaped that was not built here: ids and paths are strangers' words."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from policykd.report.table import printable

_VOID = {"meta", "br", "link", "hr"}


class Safe(str):
    """Markup that was built by `element`; it is not escaped again."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Safe:
    """`<name attribute="...">children</name>`, with every text escaped.

    `class_` is class and `data_value` data-value; an attribute that is None is left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{_escaped(str(value))}"')
    start = f"<{' '.join(words)}>"
    return Safe(start if name in _VOID else f"{start}{join(*children)}</{name}>")


def join(*children: Child) -> Safe:
    """The children one after the other: markup as it is, text escaped, None left out."""
    return Safe("".join(map(_markup, children)))


def _markup(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Safe):
        return child
    if isinstance(child, str | int | float):
        return _escaped(str(child))
    return "".join(map(_markup, child))


def _escaped(text: str) -> str:
    """Escaped for text and for attributes; control and bidirectional characters are written out, line ends stay."""
    return escape("\n".join(printable(line) for line in text.split("\n")), quote=True)
