"""Nothing is reported to anybody: no DNS look-up, no connection, no file outside the run."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeface import zoo
from edgeface.backends import export_targets
from edgeface.bundle import Bundle

ROOT = Path(__file__).parents[1]
GUARD = "ORT_DISABLE_TELEMETRY"
HELD_S = 30
"""how long sessions stay open: ONNX Runtime looks up its maker's server 12 s after the first
opens"""
REPORTING = ("nncf", "onnxruntime", "onnxsim", "openvino")
"""packages that report usage to their makers, or import such a package"""
SENDING = re.compile(r"\b(connect|send\w*|bind)\(")
WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|\b(mkdir|rename|link|symlink|mknod|creat)\w*\(")

HOLD = textwrap.dedent("""
    import sys, time
    import numpy as np
    from edgeface import Detector
    image = np.zeros((96, 128, 3), np.uint8)
    detectors = [Detector.open(model) for model in sys.argv[2:]]
    for detector in detectors:
        detector.detect(image)
    time.sleep(float(sys.argv[1]))
    for detector in detectors:
        detector.close()
    print("held", len(detectors))
    """)


def python_files() -> list[Path]:
    rooms = ("edgeface", "export", "quantize", "benchmarks", "tests")
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def on_import(tree: ast.AST) -> Iterator[str]:
    """Packages that a module imports when it is itself imported, in order."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from on_import(node)


def test_the_guard_is_up_before_anything_else_is_imported(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != GUARD}
    code = f"import edgeface, os; print(os.environ[{GUARD!r}])"
    environment["PYTHONPATH"] = str(ROOT)
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert found.stdout == "1\n", found.stderr
    tree = ast.parse((ROOT / "edgeface/__init__.py").read_text(encoding="utf-8"))
    body = [ast.unparse(node) for node in tree.body]
    guard = next(i for i, line in enumerate(body) if GUARD in line)
    before = {*on_import(ast.Module(tree.body[:guard], []))} - {*sys.stdlib_module_names}
    assert before == {"edgeface"}, "the names of old modules, and types"


def test_what_reports_is_imported_after_the_guard() -> None:
    """Such packages are imported inside functions, in modules that import from edgeface first."""
    found = set()
    for path in python_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
        if {*on_import(ast.Module([*imports], []))} & {*REPORTING}:
            assert not {*on_import(tree)} & {*REPORTING}, f"{path}: import it on use"
            assert "edgeface" in on_import(tree), f"{path}: import edgeface first"
            found.add(path.relative_to(ROOT).as_posix())
    assert "quantize/onnx.py" in found


@pytest.mark.slow
def test_a_session_of_every_runtime_is_silent(
    exported: Callable[..., Bundle], tmp_path: Path
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    models = [str(exported(target).path) for target in export_targets()]
    log, run = tmp_path / "strace", tmp_path / "run"
    environment = {name: value for name, value in os.environ.items() if name != GUARD}
    for name, folder in (("HOME", "home"), ("TMPDIR", "tmp"), ("XDG_CACHE_HOME", "cache")):
        (run / folder).mkdir(parents=True)
        environment[name] = str(run / folder)
    trace = ["strace", "-f", "-o", str(log), "-e", "trace=%network,%file"]
    found = subprocess.run(
        [*trace, sys.executable, "-B", "-c", HOLD, str(HELD_S), *models, zoo.names()[0]],
        capture_output=True,
        text=True,
        cwd=run,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )
    if "ptrace" in found.stderr and not found.stdout:
        pytest.skip("this system lets no process be traced")
    assert found.stdout == f"held {len(models) + 1}\n", found.stderr
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    assert any("onnxruntime" in line for line in lines), "what is traced is seen"
    assert [line for line in lines if SENDING.search(line)] == []
    written = [line for line in lines if WRITING.search(line) and " = -1 E" not in line]
    assert [line for line in written if '"/dev/null"' not in line] == []
    assert sorted(path.name for path in run.rglob("*")) == ["cache", "home", "tmp"]
