"""Code shared by ssh and adb: files arrive whole, records are kept, commands end."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from by_hand import alive, record, wait_for
from plain_device import PlainDevice

from edgeface import zoo
from edgeface.bundle import Bundle
from edgeface.cli.bench import ready_folders
from edgeface.errors import DataError, DeviceError
from edgeface.latency import zipapp
from edgeface.latency.devices import open_device, staging
from edgeface.latency.devices.base import Finding
from edgeface.latency.devices.journal import KEPT_S, Journal
from edgeface.latency.devices.remote import RemoteDevice
from edgeface.latency.devices.run import Run
from edgeface.latency.devices.session import Session
from edgeface.latency.devices.ssh import SshDevice
from edgeface.latency.protocol import Job, Protocol

# -- stage.py, as a device runs it --------------------------------------------


def stage(
    root: Path, files: dict[str, bytes], sent: bytes, promised: dict[str, bytes] | None = None
) -> list[dict[str, Any]]:
    """Answers of stage.py to a request for ``files`` below ``root`` and the bytes ``sent``.

    The hashes in the request are those of ``promised``, if given.
    """
    entries = [
        staging.SentFile(path, (promised or files)[path]).to_json() | {"bytes": len(content)}
        for path, content in files.items()
    ]
    request = json.dumps({"root": str(root), "files": entries}).encode() + b"\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", staging.STAGE.read_text(), sys.executable],
        input=request + sent,
        capture_output=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def left_behind(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_files_arrive_once(tmp_path: Path) -> None:
    files = {"a/one.bin": b"x" * 200_000, "b/empty": b"", "two": b"two"}
    here, *stored, end = stage(tmp_path, files, b"".join(files.values()))
    assert here["missing"] == [0, 1, 2] and [line["index"] for line in stored] == [0, 1, 2]
    assert (
        end == {"stage": "end"}
        and here["root"] == str(tmp_path)
        and here["executable"] == sys.executable
    )
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    here, end = stage(tmp_path, files, b"")
    assert here["missing"] == []


def test_only_what_changed_is_asked_for(tmp_path: Path) -> None:
    files = {"one": b"1", "two": b"2"}
    stage(tmp_path, files, b"12")
    (tmp_path / "two").write_bytes(b"!")
    here, stored, _end = stage(tmp_path, files, b"2")
    assert (
        here["missing"] == [1] and stored["index"] == 1 and (tmp_path / "two").read_bytes() == b"2"
    )


def test_damage_on_the_way_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"old")
    *_here, error = stage(tmp_path, {"one": b"1234"}, b"12X4", promised={"one": b"1234"})
    assert (error["kind"], error["text"]) == ("damaged", "it arrived damaged")
    assert left_behind(tmp_path) == ["one"] and (tmp_path / "one").read_bytes() == b"old"


def test_a_cut_transfer_leaves_nothing(tmp_path: Path) -> None:
    *_here, error = stage(tmp_path, {"one": b"1234"}, b"12")
    assert error["text"] == "the connection ended" and left_behind(tmp_path) == []


def test_leftovers_of_a_killed_transfer_go(tmp_path: Path) -> None:
    for name, age_s in (("one.7.part", 4000), ("two.8.part", 10)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    stage(tmp_path, {"one": b"1"}, b"1")
    assert left_behind(tmp_path) == ["one", "two.8.part"]


def test_the_text_that_is_sent_has_no_quotes_for_a_shell_to_trip_over() -> None:
    assert "'" not in staging.STAGE.read_text() and len(staging.STAGE.read_bytes()) < 8000


# -- journal ------------------------------------------------------------------


def test_journal_keeps_records(tmp_path: Path) -> None:
    journal = Journal.find(tmp_path / "new", ["a", 1])
    assert journal.read() == [] and not journal.exists
    journal.add(record(10.0))
    journal.add(record(20.0))
    again = Journal.find(tmp_path / "new", ["a", 1])
    assert again.read() == [record(10.0), record(20.0)]
    assert Journal.find(tmp_path / "new", ["a", 2]).read() == []
    again.remove()
    assert journal.read() == []


def test_journal_that_was_cut_short(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.add(record(10.0))
    with journal.path.open("a") as file:
        file.write('{"format_version": 1, "bundle": "ne')
    assert journal.read() == [record(10.0)]


def test_a_run_of_which_one_model_failed_is_over(tmp_path: Path) -> None:
    """Such a run leaves no journal, so the same command measures again.

    A run with a model still to measure keeps its journal.
    """
    jobs = [Job(str(zoo.ready_files("edgeface-n")[0].path)), Job(str(tmp_path / "nothing"))]
    for more, kept in (([], False), ([Job(jobs[0].bundle, 2)], True)):
        journal = Journal.find(tmp_path, ["a", len(more)])
        run = Run([*jobs, *more], Protocol(), None, None, None, lambda *_: None)
        run.resume(journal)
        manifest = run.bundles[0].manifest
        of = {name: getattr(manifest, name) for name in ("files", "model", "target", "precision")}
        run.record(json.loads(json.dumps(record(bundle=jobs[0].name, **of).to_json())), "local")
        assert len(run.close()) == 1 and journal.exists == kept


def test_a_folder_that_is_given_by_dots_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net" / "inside").mkdir(parents=True)
    for place, bundle in (("net", "."), ("net/inside", "..")):
        monkeypatch.chdir(tmp_path / place)
        run = Run([Job(bundle)], Protocol(), None, None, None, lambda *_: None)
        assert run.jobs[0].name == "net" and run.identity() == [["net", "", 1, False], None]


def test_journal_of_the_day_before_yesterday(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.add(record(10.0))
    os.utime(journal.path, (time.time() - KEPT_S - 60,) * 2)
    assert journal.read() == [] and not journal.exists


def test_journal_without_a_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "j")
    journal.add(record(10.0))
    assert journal.read() == [] and not journal.exists


# -- session ------------------------------------------------------------------


def test_lines_that_are_not_ours_are_passed_over() -> None:
    talk = (
        "import sys; print('Welcome {'); print('[1]'); print('{\"a\": 1}');"
        " sys.stderr.write('oh\\n'); sys.exit(7)"
    )
    with Session([sys.executable, "-c", talk], 60) as session:
        assert list(session.lines()) == [{"a": 1}] and session.heard
        assert session.close() == 7
    assert session.last_words() == ["oh"] and not session.silent


def test_a_command_that_says_nothing_is_given_up() -> None:
    with Session(["sleep", "1000"], 0.5) as session:
        assert list(session.lines()) == [] and session.silent


def test_a_program_that_is_given_up_ends_with_all_that_it_started() -> None:
    """ssh or adb may be a script; while a program that it started lives, the lines never end."""
    script = "sleep 1000 & echo '{\"pid\": '$!'}'; wait"
    with Session(["sh", "-c", script], 1.0) as session:
        pid = next(session.lines())["pid"]
        wait_for(lambda: session.silent)
        wait_for(lambda: not alive(pid))
        assert list(session.lines()) == []


def test_the_end_of_a_session_ends_its_command() -> None:
    code = (
        "import os, sys; print('{\"pid\": %d}' % os.getpid(), flush=True); sys.stdin.read();"
        " print('x' * 10_000_000)"
    )
    with Session([sys.executable, "-c", code], 60) as session:
        pid = next(session.lines())["pid"]
        assert alive(pid)
    wait_for(lambda: not alive(pid))


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="cannot start /no/such/program: No such file"):
        Session(["/no/such/program"], 1)


# -- judging a device ---------------------------------------------------------


class Board(RemoteDevice):
    """A device whose commands run in a local shell."""

    root, folder, package = "~/.cache/edgeface", ".cache/edgeface", "board-tools"

    def arguments(self, command: str) -> list[str]:
        return ["sh", "-c", command]

    def advice(self, command: str) -> str:
        return f"board {command}"

    def explain(self, code: int, words: list[str]) -> str | None:
        return None

    def python_advice(self) -> str:
        return "board get python3"


def test_a_network_stands_for_the_ready_files_that_run_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    local = open_device("local")
    board = Board("board://x", sys.executable)
    assert board.targets() == local.targets() != []
    files = zoo.ready_files("edgeface-n")
    assert ready_folders("edgeface-n", board) == [str(f.path) for f in files if f.runs_here]
    venv.create(tmp_path / "bare", with_pip=False)
    bare = Board("board://x", str(tmp_path / "bare/bin/python"))
    assert bare.targets() == []
    with pytest.raises(DeviceError, match=r"no runtime for the ready files of edgeface-n .*check"):
        ready_folders("edgeface-n", bare)
    assert ready_folders(files[0].name, bare) == [str(files[0].path)]


def test_what_the_script_for_a_raspberry_pi_installed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``~/edgeface/venv`` is used if the cache folder has no environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Board, "installed", SshDevice.installed)
    board = Board("board://x")
    python = tmp_path / "edgeface" / "venv" / "bin" / "python"
    assert board._stage(()).executable != str(python)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    staged = board._stage(())
    assert staged.executable == str(python)
    found = board._install(dataclasses.replace(staged, virtual=True))
    assert found == f"board {python} -m pip install"


def test_a_platform_without_packages(exported: Callable[..., Bundle]) -> None:
    """On a 32-bit Raspberry Pi, only ncnn has wheels."""
    facts = {
        "system": "Linux",
        "machine": "armv7l",
        "packages": {"numpy": "1", "cv2": "1"},
        "runtimes": dict.fromkeys(("onnx", "tflite", "openvino", "ncnn")),
    }
    told: list[str] = []
    jobs = [Job(str(exported("onnx").path))]
    run = Run(jobs, Protocol(), None, None, None, lambda index, why: told.append(why))
    Board("board://x")._check_packages(run, facts, "pip install")
    assert told[0].startswith(
        f"{jobs[0]}: there is no ONNX Runtime for Linux armv7l (only for Linux x86_64"
    )


@pytest.mark.parametrize(
    ("python", "virtual", "executable", "expected"),
    [
        (None, False, "/usr/bin/python3", ".cache/edgeface/venv/bin/python"),
        (None, True, "/home/pi/.cache/edgeface/venv/bin/python", ".cache/edgeface/venv/bin/python"),
        (None, True, "/opt/conda/bin/python3", "/opt/conda/bin/python3"),
        ("~/venv/bin/python", True, "/home/pi/venv/bin/python", "/home/pi/venv/bin/python"),
        ("~/my env/bin/python", True, "/home/pi/my env/bin/python", "/home/pi/my env/bin/python"),
        ("/my env/bin/python", True, "/my env/bin/python", "/my env/bin/python"),
    ],
)
def test_packages_go_where_the_python_that_is_used_looks(
    python: str | None, virtual: bool, executable: str, expected: str
) -> None:
    """The command is typed into a local shell with another home, then read by the device's."""
    staged = staging.Staged("/home/pi/.cache/edgeface", 0, executable, virtual, True, ())
    install = Board("board://x", python)._install(staged)
    board = """board() { HOME=/home/pi sh -c "printf '%s|' $*"; }; """
    found = subprocess.run(
        ["sh", "-c", board + install], capture_output=True, text=True, env={"HOME": "/here"}
    )
    assert found.stdout.split("|") == [expected, "-m", "pip", "install", ""], found


def test_advice_for_a_python_that_cannot_make_environments() -> None:
    staged = staging.Staged("/home/pi/.cache/edgeface", 0, "/usr/bin/python3", False, False, ())
    fix = Board("board://x")._missing_venv(staged).fix
    assert fix == "board get python3 && board python3 -m venv .cache/edgeface/venv"


def test_a_command_for_the_devices_shell_is_put_to_it() -> None:
    board = Board("board://x")
    assert (
        board._typed_here(Finding(True, "governor", "echo a | tee b"), "board pip").fix
        == "board 'echo a | tee b'"
    )
    assert board._typed_here(Finding(True, "onnx", "board pip x"), "board pip").fix == "board pip x"
    assert (
        board._typed_here(Finding(False, "disk", "free 200 MB"), "board pip").fix == "free 200 MB"
    )


def test_hash_in_the_name_of_the_agent() -> None:
    assert staging.agent_path() == f"edgeface-{hashlib.sha256(zipapp.pack()).hexdigest()[:16]}.pyz"


# -- a device that answers something else -------------------------------------


class Strange(PlainDevice):
    """A device whose shell prints ``answer`` to every command."""

    root, folder, package = "~/.cache/edgeface", "~/.cache/edgeface", "nothing"

    def __init__(self, answer: str) -> None:
        super().__init__("ssh://strange")
        self.answer = answer

    def arguments(self, command: str) -> list[str]:
        return ["printf", "%s\\n", self.answer]


@pytest.mark.parametrize(
    "answer",
    [
        '{"stage": "here"}',
        '{"stage": "here", "missing": [99], "root": "/"}',
        '{"stage": "here", "missing": 5}',
        '{"stage": "here", "missing": [], "surprise": 1}',
    ],
)
def test_a_strange_answer_is_one_line(answer: str) -> None:
    with pytest.raises(DeviceError, match="answered something else than edgeface would") as caught:
        Strange(answer).check()
    assert "\n" not in str(caught.value) and str(caught.value).startswith("ssh://strange: ")


@pytest.mark.parametrize(
    "line",
    [
        {"progress": 5},
        {"progress": {"what": "x"}},
        {"measurement": []},
        {"failed": {"job": 7, "message": "x"}},
        {"failed": None},
    ],
)
def test_a_strange_line_of_the_agent_is_one_line(line: dict[str, Any]) -> None:
    run = Run([], Protocol(), None, None, None, None)
    device = Strange("")
    with pytest.raises((DataError, DeviceError)), device._understood():
        device._heed(line, run, [], "pip install")
