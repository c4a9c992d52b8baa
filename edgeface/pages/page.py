"""The frame of a report: one HTML file that loads and runs nothing, and whose policy forbids it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edgeface.pages.markup import Html, join, tag

STYLE = Path(__file__).with_name("page.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(title: str, *content: object) -> str:
    """The text of the HTML file. Equal content gives equal bytes."""
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
            tag("title", title),
            tag("style", Html(STYLE.read_text(encoding="utf-8"))),
        ]
    )
    return (
        "<!doctype html>\n<html"
        f' lang="en"><head>{head}</head>\n<body>{join(content)}</body></html>\n'
    )


def section(title: str, text: str, *content: object) -> Html:
    """A heading, what the reader should know, and the content."""
    return join(
        [Html("\n"), tag("section", tag("h2", title), tag("p", text, class_="soft"), *content)]
    )


def facts(rows: Mapping[str, object]) -> Html:
    """A list of names with their values."""
    return tag(
        "dl", *itertools.chain.from_iterable((tag("dt", k), tag("dd", v)) for k, v in rows.items())
    )


def card(title: str, *content: object) -> Html:
    """A frame with a heading."""
    return tag("figure", tag("h3", title), *content, class_="card")


def cards(found: Iterable[Html]) -> Html:
    """Cards, side by side if there is room."""
    return tag("div", *found, class_="cards")


def strip_row(name: str, said: Html, strip: Html, invalid: bool = False) -> Html:
    """Name and figure above a strip."""
    return tag(
        "div",
        tag("div", tag("b", name), said, class_="label"),
        strip,
        class_="row invalid" if invalid else "row",
    )


def legend(keys: Iterable[tuple[Html, str]]) -> Html:
    """A legend; keys: (mark, what it stands for)."""
    return tag("ul", *(tag("li", mark, name) for mark, name in keys), class_="legend")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], prose: set[int]) -> Html:
    """A table that scrolls on its own; the columns of ``prose`` hold sentences."""
    kinds = ["text" if i in prose else "" for i in range(len(columns))]
    head = tag(
        "tr",
        *(
            tag("th", name, scope="col", class_=kind)
            for name, kind in zip(columns, kinds, strict=True)
        ),
    )
    body = [
        tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(cells, kinds, strict=True)))
        for cells in rows
    ]
    return tag(
        "div", tag("table", tag("thead", head), tag("tbody", *body)), class_="wide", tabindex="0"
    )
