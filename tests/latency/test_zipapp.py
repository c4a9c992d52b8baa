"""The zip file that a device gets: same bytes each time, no module missing, no needless folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from test_light_import import BLOCKER

from edgeface.backends import export_targets
from edgeface.bundle import Bundle
from edgeface.latency import zipapp
from edgeface.latency.agent import Request
from edgeface.latency.protocol import Job, Protocol

ROOT = Path(__file__).parents[2]
QUICK = Protocol(
    rounds=1, per_round=1, warm_up_s=0, photo_width=320, photo_height=240, time_limit_s=120
)


@pytest.fixture
def device(tmp_path: Path) -> dict[str, str]:
    """Environment of a Python that can import neither heavy packages nor this checkout."""
    (tmp_path / "agent.pyz").write_bytes(zipapp.pack())
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(BLOCKER)
    (tmp_path / "json.py").write_text("raise SystemExit('the current folder was searched')")
    return {**os.environ, "PYTHONPATH": str(tmp_path / "hidden")}


def ask(request: Request, device: dict[str, str], folder: Path) -> list[dict[str, object]]:
    with subprocess.Popen(
        [sys.executable, "-u", "agent.pyz"],
        cwd=folder,
        env=device,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as agent:
        assert agent.stdin and agent.stdout
        agent.stdin.write(json.dumps(request.to_json()) + "\n")
        agent.stdin.flush()
        lines = [json.loads(line) for line in agent.stdout]
        agent.wait()  # its input is still open: it ends by itself
    assert agent.returncode == 0 and lines[-1] == {"done": True}
    return lines


def test_equal_sources_give_equal_bytes() -> None:
    code = (
        "import hashlib; from edgeface.latency import zipapp;"
        " print(hashlib.sha256(zipapp.pack()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
    )
    assert other.stdout.strip() == hashlib.sha256(zipapp.pack()).hexdigest()


def test_entries_are_the_projects_own_sources_and_tell_nothing_of_this_machine() -> None:
    with zipfile.ZipFile(io.BytesIO(zipapp.pack())) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        for entry in archive.infolist():
            assert (
                entry.date_time == (1980, 1, 1, 0, 0, 0)
                and entry.compress_type == zipfile.ZIP_STORED
            )
            assert (entry.create_system, entry.external_attr) == (3, 0o644 << 16)
            if entry.filename != "__main__.py":
                assert archive.read(entry) == (ROOT / entry.filename).read_bytes()


def test_agent_examines_its_machine(device: dict[str, str], tmp_path: Path) -> None:
    check, done = ask(Request("check"), device, tmp_path)
    assert set(check) == {"check"} and done == {"done": True}


def test_agent_measures_with_every_runtime(
    device: dict[str, str], tmp_path: Path, exported: Callable[..., Bundle]
) -> None:
    bundles = [
        exported(target, landmarks=landmarks)
        for target in export_targets()
        for landmarks in (False, True)
    ]
    jobs = tuple(Job(str(bundle.path)) for bundle in bundles)
    lines = ask(Request("measure", jobs, QUICK), device, tmp_path)
    assert [line for line in lines if "failed" in line or "error" in line] == []
    assert sum("measurement" in line for line in lines) == len(jobs)


def test_nothing_is_missing_and_no_folder_too_much(
    device: dict[str, str], tmp_path: Path, exported: Callable[..., Bundle]
) -> None:
    """All modules come from the zip, and each of its folders is used by some target."""
    code = (
        "import sys; sys.path = [sys.argv[1]] + [p for p in sys.path if p]\nfrom pathlib import"
        " Path; import numpy\nimport edgeface.latency.agent, edgeface.latency.session,"
        " edgeface.latency.worker, edgeface.latency.photo\nfrom edgeface import Detector\nwith"
        " Detector.open(Path(sys.argv[2])) as detector: detector.detect(numpy.zeros((100, 100, 3),"
        " 'uint8'))\nfor module in list(sys.modules.values()):\n    if"
        " module.__name__.split('.')[0] == 'edgeface': print(module.__file__)\n"
    )
    agent, used = str(tmp_path / "agent.pyz"), set()
    for target in export_targets():
        done = subprocess.run(
            [sys.executable, "-c", code, agent, str(exported(target).path)],
            cwd=tmp_path,
            env=device,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        used |= {line.removeprefix(f"{agent}/") for line in done.stdout.splitlines()}
    with zipfile.ZipFile(io.BytesIO(zipapp.pack())) as archive:
        assert used < set(archive.namelist())
    assert {Path(name).parent.name for name in used} == {"edgeface", *zipapp.ROOMS}
