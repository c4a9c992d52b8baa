"""Every way in which a command ends has its exit code and its line of output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from commands import Command, failed

from edgeface.backends import PRECISIONS, export_targets
from edgeface.cli.program import Stopped, as_command, run, stoppable
from edgeface.errors import DataError, MissingExtraError
from quantize.ranges import SCALES

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-m", "edgeface"]
HEAVY = ("torch", "scipy", "cv2", "onnxruntime", "sklearn", "matplotlib", "rich")


def ending(error: BaseException | int | None) -> int:
    """Exit code of a command that raises or returns ``error``."""

    def command() -> int | None:
        if isinstance(error, BaseException):
            raise error
        return error

    return run(as_command(command, "Does nothing."), "test", [])


def interrupted(error: Exception) -> Exception:
    """``error`` as pybind11 raises it when Ctrl-C interrupts a module that loads."""
    error.__cause__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 0, ""),
        (1, 1, ""),
        (DataError("no such\x1b table"), 2, "error: no such\\x1b table\n"),
        (
            MissingExtraError("torch", "zoo", "this"),
            2,
            "error: this needs the package 'torch': run: pip install",
        ),
        (PermissionError(13, "denied", "x"), 2, "error: [Errno 13] denied: 'x'"),
        (MemoryError(), 2, "error: there is not enough memory for this: "),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
            2,
            "error: there is not enough",
        ),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (interrupted(ImportError("initialization failed")), 130, "stopped\n"),
        (interrupted(DataError("the model does not load")), 130, "stopped\n"),
        (Stopped("go on with x"), 130, "stopped: go on with x\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_endings(
    error: BaseException | int | None, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(error) == code
    err = capsys.readouterr().err
    assert err.startswith(line) and err.count("\n") == bool(line)


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        ending(RuntimeError("a bug"))


def test_what_is_kept_is_said_after_ctrl_c() -> None:
    with pytest.raises(Stopped, match="all of it"), stoppable("all of it"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--colour"], "error: No such option: --colour"),
        ([], "error: Missing argument 'N'"),
        (["x"], "error: Invalid value for 'N'"),
    ],
)
def test_a_refused_option_is_one_line_that_names_the_help(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(n: Annotated[int, typer.Argument(metavar="N")]) -> None:
        raise AssertionError("never called")

    assert run(as_command(command, "Counts."), "test", arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(line) and err.endswith(": see test --help\n") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("detect", ""), "an argument"),
        (("detect", "photo.jpg", "--save", ""), "--save"),
        (("detect", "photo.jpg", "--save="), "--save"),
        (("train", "--data", "", "--out", "run"), "--data"),
    ],
)
def test_an_empty_path_is_not_the_folder_that_one_is_in(
    edgeface: Command, arguments: tuple[str, ...], what: str
) -> None:
    """An empty path comes from a shell variable that is not set."""
    failed(edgeface(*arguments), f"error: {what} is empty")


REFUSED = (
    ("models", "--size", "641x480"),
    ("detect", "x.jpg", "--format", "xml"),
    ("bench", "nowhere"),
    ("export", "--target", "coreml"),
    ("export", "--target", "onnx", "--size", "big"),
    ("quantize", "--target", "onnx", "--max-drop", "-1"),
    ("search", "--out", "x", "--objective", "luck"),
    ("train", "--data", "x", "--out", "y", "--model", "nonsense"),
    ("train", "--data", "x", "--out", "y", "--size", "1"),
    ("compare", "a", "b"),
    ("eval", "--data", "x", "--scale", "3"),
    ("eval", "--data", "nowhere"),
    ("autofem", "--data", "x", "--out", "y", "--steps", "0"),
    ("weights", "import", "x.pth", "--model", "nonsense"),
    ("no-such-verb",),
    ("--version",),
    ("--help",),
    ("models",),
    ("doctor",),
)


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_nothing_heavy_is_imported_for_what_needs_none(arguments: tuple[str, ...]) -> None:
    """Heavy imports make such an answer slow; its duration itself depends on the machine."""
    code = (
        f"import sys; from edgeface.cli import main; code = main({list(arguments)!r});\n"
        f"print(code, [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    expected = (
        0 if arguments[0] in ("--version", "--help", "doctor") or arguments == ("models",) else 2
    )
    assert done.stderr.splitlines()[-1] == f"{expected} []", done.stderr


def test_help_imports_no_numpy() -> None:
    code = (
        "import sys; from edgeface.cli import main; main(['--help']); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("False\n")


INTERRUPT = """
import runpy, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    "module", ["typer", "edgeface.cli.app", "edgeface.cli.models", "edgeface.zoo"]
)
def test_ctrl_c_while_it_imports_leaves_no_traceback(module: str) -> None:
    code = (
        INTERRUPT.format(module=module)
        + "from edgeface.cli import main; sys.exit(main(['models']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 130 and "Traceback" not in done.stderr, done.stderr


def test_ctrl_c_while_a_benchmark_imports_leaves_no_traceback() -> None:
    code = (
        INTERRUPT.format(module="numpy")
        + "sys.argv = ['-m']; import benchmarks, benchmarks.postprocess"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (130, -signal.SIGINT) and done.stderr == "stopped\n"


def test_no_thread_is_asked_for_that_a_limit_could_refuse() -> None:
    """OpenBLAS, which NumPy and OpenCV bring, would wait for ever for a refused thread."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("this system does not say how many threads a process has")
    code = (
        "import os; from edgeface.cli import main; main(['detect', 'none.jpg'])\n"
        "import cv2, numpy; print(len(os.listdir('/proc/self/task')))"
    )
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("locale", ["C", "en_US.ISO-8859-1"])
def test_stdout_that_cannot_encode_a_name_loses_nothing(locale: str, tmp_path: Path) -> None:
    (tmp_path / "写真.jpg").write_text("not an image")
    done = subprocess.run(
        [*RUN, "detect", str(tmp_path / "写真.jpg")],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": locale, "PYTHONUTF8": "0"},
    )
    assert (
        done.returncode == 2 and b"Traceback" not in done.stderr and b"not an image" in done.stderr
    )


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_a_closed_stream_does_not_end_a_command(closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(RUN)} models {closed}"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert ("edgeface-n" in done.stdout) == ("1>&-" not in closed)


@pytest.mark.parametrize("arguments", ["models", "--help", "detect --help", "--version", ""])
def test_a_full_disk_is_one_line(arguments: str) -> None:
    """Also if Python buffers its output and tries to print it only at exit."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(RUN)} {arguments} > /dev/full"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    line = "error: cannot print: No space left on device: send stdout to where there is room\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_the_folder_that_one_is_in_is_gone(tmp_path: Path) -> None:
    command = f"mkdir gone; cd gone; rmdir ../gone; {' '.join(RUN)} bench nowhere --save x.json"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    line = "error: the folder that you are in was deleted: change into another one with: cd\n"
    assert (done.returncode, done.stderr) == (2, line)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("export", "edgeface export"),
        ("quantize", "edgeface quantize"),
        ("benchmarks.search_evidence", "python -m benchmarks.research.evidence"),
    ],
)
def test_old_names_still_run_and_name_the_new(old: str, new: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", old, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and done.stdout.startswith(f"Usage: {new} ")
    assert done.stderr == f"note: python -m {old} is now: {new}\n"


def test_verbs_of_a_checkout_say_so_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeface.cli import main

    monkeypatch.setattr("edgeface.backends.CHECKOUT", tmp_path)
    assert main(["export", "--target", "onnx"]) == 2
    assert (
        capsys.readouterr().err
        == "error: this runs from a checkout of the project: clone it and run: make export"
        " TARGET=tflite\n"
    )


def test_without_its_extra_the_command_line_names_it() -> None:
    code = (
        "import sys; sys.modules['typer'] = None\n"
        "from edgeface.cli import main; sys.exit(main(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    line = "error: the command line needs the package 'typer': run: pip install 'edgeface[cli]'\n"
    assert (done.returncode, done.stderr, done.stdout) == (2, line, "")


TAUGHT = {
    "export": (*PRECISIONS, "--dynamic", "--weights", "--seed", "manifest.json"),
    "quantize": (
        *SCALES,
        "--max-drop",
        "--calibration",
        "--no-accuracy",
        "--bundle",
        "AP points",
        "SHA-256",
    ),
}
HEAVY = ("torch", "onnx", "onnxruntime", "onnxsim", "litert_torch", "ai_edge_quantizer", "nncf")


@pytest.mark.parametrize("verb", TAUGHT)
def test_help_of_a_checkouts_verb_teaches_and_needs_no_converter(verb: str) -> None:
    code = (
        f"import runpy, sys\nsys.modules |= dict.fromkeys({HEAVY})\n"
        f"sys.argv = ['edgeface', {verb!r}, '--help']\n"
        "runpy.run_module('edgeface', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in (*TAUGHT[verb], *export_targets(), "Examples:"):
        assert word in done.stdout, word
