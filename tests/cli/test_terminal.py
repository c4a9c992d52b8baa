"""Progress: a bar on a terminal, and elsewhere a plain line every half minute."""

from __future__ import annotations

import re

import pytest

from edgeface.cli.terminal import EVERY_S, Terminal


class Clock:
    """Stands in for the module ``time``: the clock moves only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("edgeface.cli.terminal.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    return Clock(monkeypatch)


def test_a_log_has_a_line_every_half_minute_with_counts_and_end(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    with Terminal() as terminal:
        for done in range(101):
            terminal.tick("training", done, 100, f"loss {done}")
            clock.now += EVERY_S / 10
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[0].startswith("training: 10 of 100, until about ")
    assert all(
        re.fullmatch(r"training: \d+ of 100(, until about \d\d:\d\d)?, loss \d+", line)
        for line in lines
    )


def test_a_step_that_is_over_soon_says_nothing(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    with Terminal() as terminal:
        for done in range(5):
            terminal.tick("measuring", done, 4)
    assert capfd.readouterr().err == ""


def test_several_steps_are_named_as_they_begin(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    with Terminal(steps=True) as terminal:
        for step in ("first", "second"):
            for done in range(3):
                terminal.tick(step, done, 2)
        with terminal.stage("third"):
            terminal.note("a\x1b[2Jb")
    assert capfd.readouterr().err.splitlines() == [
        "first ...",
        "second ...",
        "third ...",
        r"note: a\x1b[2Jb",
    ]


def test_a_count_without_a_total(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with Terminal() as terminal:
        terminal.tick("detecting", 1, 0, "a.jpg")
        clock.now += EVERY_S
        terminal.tick("detecting", 2, 0, "b.jpg")
    assert capfd.readouterr().err == "detecting: 2, b.jpg\n"


def test_a_terminal_gets_a_bar_without_markup(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Terminal() as terminal:
        terminal.tick("evaluating", 1, 2, "[red]photo[/red]")
        terminal._bar.refresh()  # type: ignore[union-attr]
        terminal.line("a[/b].jpg")
        with terminal.stage("c[/d].jpg"):
            pass
    err = capfd.readouterr().err
    assert "evaluating" in err and "1/2" in err and "[red]photo[/red]" in err
    assert "a[/b].jpg" in err and "c[/d].jpg" in err


def test_a_process_that_leaves_talking_to_another(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    with Terminal(shown=False, steps=True) as terminal:
        terminal.tick("training", 0, 2)
        terminal.note("x")
    assert capfd.readouterr().err == ""
