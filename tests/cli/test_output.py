"""Tables lose no figure, and text from outside is escaped before it reaches a terminal."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from edgeface.cli.output import (
    LONGEST,
    NARROWEST,
    cells_wide,
    emit,
    middle,
    print_table,
    printable,
    table,
)
from edgeface.cli.rows import open_rows


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.jpg", "plain.jpg"),
        ("\x1b[31mred\x1b[0m\x07", r"\x1b[31mred\x1b[0m\x07"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("caf\u00e9 \u5199\u771f.jpg", "caf\u00e9 \u5199\u771f.jpg"),
        ("\udcff.jpg", r"\udcff.jpg"),
        ("[bold]no markup[/bold]", "[bold]no markup[/bold]"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_message_is_bounded() -> None:
    text = printable("a" + "x" * 10**6 + "z")
    assert len(text) == LONGEST and text.startswith("ax") and text.endswith("xz") and "..." in text


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [
        ("abcdefghij", 10, "abcdefghij"),
        ("abcdefghij", 9, "abc...hij"),
        ("abcdefghij", 8, "abc...ij"),
        ("\u5199\u771f\u5199\u771f", 7, "\u5199...\u771f"),
    ],
)
def test_names_are_cut_in_the_middle(text: str, width: int, cut: str) -> None:
    assert middle(text, width) == cut and cells_wide(cut) <= width


def test_a_table_is_aligned() -> None:
    assert table(("name", "ms"), [("a", 10), ("longer", 2.5), ("none", None)]).splitlines() == [
        "name     ms",
        "a        10",
        "longer  2.5",
        "none      -",
    ]
    assert table(("a", "b"), [("x", "y")], right=("a",), indent=3).splitlines() == [
        "   a  b",
        "   x  y",
    ]


def test_wide_characters_are_two_columns() -> None:
    first, second, third = table(("name", "ms"), [("\u5199\u771f", 1), ("four", 2)]).splitlines()
    assert (first, second, third) == ("name  ms", "\u5199\u771f   1", "four   2")


def test_a_narrow_terminal_costs_names_never_figures() -> None:
    name, figure = "layer" * 20, "123456.789"
    rows = [(name, figure, "why " * 20, figure)]
    columns = ("name", "ms", "reason", "ratio")
    lines = table(columns, rows, right=("ms", "ratio"), fold=("reason",), width=60).splitlines()
    assert all(len(line) <= 60 for line in lines) and sum(line.count(figure) for line in lines) == 2
    assert "..." in lines[1] and sum(line.count("why") for line in lines) == 20
    lines = table(("name", "ms", "ratio"), [(name, figure, figure)], width=10).splitlines()
    assert lines[1].count(figure) == 2 and cells_wide(lines[1].split()[0]) == NARROWEST


def test_a_pipe_gets_everything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    print_table(("name", "ms"), [("n" * 4096, 1)], right=("ms",))
    assert "n" * 4096 in capsys.readouterr().out


PRINTS_AS_IT_IS = {
    "edgeface/cli/__init__.py": "the name of a package",
    "edgeface/cli/output.py": "what passed printable, and JSON in ASCII",
    "edgeface/cli/program.py": "our help",
    "edgeface/cli/rows.py": "JSON in ASCII, and cells that passed printable",
    "edgeface/deprecations.py": "names of ours",
    "edgeface/training/__init__.py": "a library's default: commands pass a Terminal's note",
    "export/ncnn.py": "a converter's log, with --verbose alone",
}


def _is_ours(node: ast.expr) -> bool:
    """Is the expression text of the source, a formatted figure, or passed through printable?

    Tables pass their text through printable themselves."""
    if isinstance(node, ast.JoinedStr):
        return all(map(_is_ours, node.values))
    if isinstance(node, ast.FormattedValue):
        return node.format_spec is not None or _is_ours(node.value)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in ("printable", "table", "as_table")
    if isinstance(node, ast.Name):
        return node.id.isupper()
    if isinstance(node, ast.IfExp):
        return _is_ours(node.body) and _is_ours(node.orelse)
    return isinstance(node, ast.Constant)


def test_whatever_is_printed_is_ours_or_made_printable() -> None:
    root, found = Path(__file__).parents[2], set[str]()
    for room in ("edgeface", "export", "quantize", "benchmarks"):
        for path in sorted((root / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or ast.unparse(node.func) not in (
                    "print",
                    "put",
                    "typer.echo",
                    "console.print",
                    "sys.stderr.write",
                ):
                    continue
                if not all(map(_is_ours, node.args)):
                    found.add(path.relative_to(root).as_posix())
    assert found == {*PRINTS_AS_IT_IS}


def test_a_result_of_several_lines_is_made_printable(capsys: pytest.CaptureFixture[str]) -> None:
    emit({}, "a \x1b[31mtable\nof two lines", "table")
    assert capsys.readouterr().out == "a \\x1b[31mtable\nof two lines\n"


def test_the_number_of_a_frame_is_not_cut_after_hours(capsys: pytest.CaptureFixture[str]) -> None:
    rows = open_rows("table", [("camera:0", True)], False)
    for frame in (999_999, 10_000_000):
        rows.add({"image": f"camera:0#{frame}", "faces": []})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["camera:0#999999", "camera:0#10000000"]
