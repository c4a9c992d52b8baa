"""HTML and SVG, safe from injection: whatever is put into a tag is escaped unless a tag made it."""

from __future__ import annotations

from html import escape

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Html(str):
    """Finished markup."""

    __slots__ = ()


def text(value: object) -> Html:
    """``value``, escaped for any place in the markup, quoted attributes included.

    Replaces characters that cannot be printed: control characters, lone surrogates, and marks that
    change the direction of writing, with which one name could pass for another.
    """
    if isinstance(value, Html):
        return value
    return Html(escape("".join(c if c.isprintable() else REPLACEMENT for c in str(value))))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """``<name attributes>children</name>``. ``class_`` is ``class``, ``stroke_width`` is
    ``stroke-width``."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{words}>{join(children)}</{name}>")


def join(parts: object) -> Html:
    """All ``parts``, one after the other."""
    assert isinstance(parts, (list, tuple)), parts
    return Html("".join(text(part) for part in parts))
