"""Ctrl-C at any moment of a command's first second ends it without a traceback."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERRUPTED = (130, -signal.SIGINT)
"""exit code, or the signal that ended the process: a shell reports 130 for both"""
SCRIPT = textwrap.dedent("""
    import sys
    class First:
        def find_spec(self, name, path=None, target=None):
            if name == "edgeface.deprecations":
                print("up", flush=True)
    sys.meta_path.insert(0, First())
    from edgeface.cli import main
    sys.exit(main())
    """)
"""the program that pip installs; prints "up" at the first import of our code, none of which runs
before that"""
SWALLOWED = textwrap.dedent("""
    import edgeface, signal, time, weakref
    class Thing:
        pass
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    print("up", flush=True)
    del thing
    time.sleep(60)
    """)
TAKEN = textwrap.dedent("""
    import contextlib, edgeface, signal, sys
    print("up", flush=True)
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGINT)
    from edgeface.cli import main
    sys.exit(main())
    """)
"""imitates a library that takes every exception for an error of its own while it loads"""
CALLED_BACK = textwrap.dedent("""
    import edgeface, signal, sys
    from edgeface.cli import main
    c_function, function = sys.argv.pop(1).split(" > ")
    running = []
    def watch(frame, event, called):
        if event == "c_call" and called.__name__ == c_function:
            running.append(called)
        elif running and event == "call" and frame.f_code.co_name == function:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)
    print("up", flush=True)
    sys.setprofile(watch)
    sys.exit(main())
    """)
"""Ctrl-C at a given moment: when the given C function calls the given Python function"""
VERBS = (
    ("models",),
    ("--help",),
    ("export", "--target", "onnx", "--size", "64x64"),
    ("search", "--published", "0.5g"),
)


def started(folder: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program called ``edgeface`` and wait for its first line.

    SIGINT has its default action, as a test suite may ignore it."""
    script = folder / "edgeface"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout and process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize(
    "seed", [*range(8), *(pytest.param(s, marks=pytest.mark.slow) for s in range(8, 150))]
)
def test_no_traceback(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    verb = VERBS[seed % len(VERBS)]
    process = started(tmp_path, SCRIPT, *verb)
    time.sleep(rng.uniform(0, 0.1 if seed % 2 else 1))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    assert process.returncode in INTERRUPTED or (process.returncode, out) == (0, whole(verb)), err


@functools.cache
def whole(verb: tuple[str, ...]) -> str:
    """Output of the command if it is not interrupted: a Ctrl-C may come only as Python ends."""
    run = [sys.executable, "-m", "edgeface", *verb]
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(run, capture_output=True, text=True, cwd=folder, env=env, check=True)
    return done.stdout


def test_where_python_would_swallow_it_it_comes_again(tmp_path: Path) -> None:
    process = started(tmp_path, SWALLOWED)
    _, err = process.communicate(timeout=50)
    assert (process.returncode in INTERRUPTED, err) == (True, "stopped\n")


def test_where_a_library_took_it_for_its_own_it_is_heeded(tmp_path: Path) -> None:
    process = started(tmp_path, TAKEN, "models")
    out, err = process.communicate(timeout=50)
    assert (process.returncode in INTERRUPTED, out, err) == (True, "", "stopped\n")


@pytest.mark.parametrize(
    "moment",
    [
        "_multiprocessing_init > _lock_unlock_module",
        "_dist_autograd_init > _lock_unlock_module",
        "_create_graph_by_tracing > __instancecheck__",
    ],
)
def test_where_c_would_abort_for_it_it_comes_later(moment: str, tmp_path: Path) -> None:
    """An interrupt at any of these moments used to abort or crash the process."""
    process = started(
        tmp_path, CALLED_BACK, moment, "export", "--target", "onnx", "--size", "64x64"
    )
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.splitlines()[-1]) == (130, "stopped"), err
