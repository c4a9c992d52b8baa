"""File descriptor 2 is silent inside a block, and restored afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from edgeface.errors import ExportError
from edgeface.images.silence import listening
from edgeface.quiet import quiet, quiet_stage


def say(text: str) -> None:
    os.write(2, text.encode())


def test_inside_and_after(capfd: pytest.CaptureFixture[str]) -> None:
    say("before ")
    with quiet():
        say("inside ")
        with quiet():
            say("deep inside ")
        say("inside again ")
    say("after")
    assert capfd.readouterr().err == "before after"


def test_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="told"), quiet():
        raise ValueError("told")
    say("after")
    assert capfd.readouterr().err == "after"


def test_a_converter_without_memory_has_no_other_fault() -> None:
    with pytest.raises(MemoryError, match="bad_alloc"), quiet_stage("converting"):
        raise RuntimeError("std::bad_alloc")
    with pytest.raises(ExportError, match="no such operator"), quiet_stage("converting"):
        raise RuntimeError("no such operator")


def test_what_was_printed_before_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    print("before", file=sys.stderr, end="")
    with quiet():
        say("inside")
    assert capfd.readouterr().err == "before"


def test_threads_put_it_back_in_turn(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        for _ in range(50):
            with quiet():
                say("inside")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("after")
    assert capfd.readouterr().err == "after"


def test_blocks_end_in_any_order(capfd: pytest.CaptureFixture[str]) -> None:
    """In two threads, a model load may begin before a photo is decoded, and end first."""
    load, photo = quiet(), listening()
    load.__enter__()
    heard = photo.__enter__()
    load.__exit__(None, None, None)
    say("inside")
    photo.__exit__(None, None, None)
    say(" after")
    assert heard.text == b"inside"
    assert capfd.readouterr().err == "inside after"


def test_loads_beside_decoding_leave_stderr_as_it_was() -> None:
    before = os.fstat(2)

    def work(block: Callable[[], AbstractContextManager[object]]) -> None:
        for _ in range(300):
            with block():
                pass

    threads = [threading.Thread(target=work, args=(block,)) for block in (quiet, listening) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.path.samestat(os.fstat(2), before)


def test_two_conversions_in_threads_leave_python_its_streams() -> None:
    before = sys.stdout, sys.stderr
    begun, ended = threading.Event(), threading.Event()

    def convert(last: bool) -> None:
        with quiet(everything=True):
            begun.set()
            if not last:
                ended.wait(5)

    threads = [threading.Thread(target=convert, args=(last,)) for last in (False, True)]
    threads[0].start()
    begun.wait()
    threads[1].start()
    time.sleep(0.1)
    ended.set()
    for thread in threads:
        thread.join()
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_without_a_descriptor_left_stderr_stays() -> None:
    program = """
import os, resource
from edgeface.quiet import quiet
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    os.close(taken.pop())
try:
    with quiet():
        pass
except OSError:
    os.write(1, b"no room ")
os.write(2, b"heard")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no room ", "heard")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_forked_during_a_load_of_another_thread_has_stderr() -> None:
    program = """
import os, threading
from edgeface.quiet import quiet
inside, ended = threading.Event(), threading.Event()
def load():
    with quiet():
        inside.set()
        ended.wait()
thread = threading.Thread(target=load)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    os.write(2, b"child ")
    with quiet():
        os.write(2, b"unheard")
    os._exit(0)
os.waitpid(child, 0)
ended.set()
thread.join()
os.write(2, b"parent")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "child parent")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("block", ["quiet(everything=True)", "unreported('json')"])
def test_a_process_forked_during_a_conversion_of_another_thread(block: str) -> None:
    """The child prints, imports and enters such a block as if no conversion were running."""
    program = f"""
import os, sys, threading
from edgeface.quiet import quiet, unreported
inside, ended = threading.Event(), threading.Event()
def convert():
    with {block}:
        inside.set()
        ended.wait()
thread = threading.Thread(target=convert, daemon=True)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    import json
    with {block}:
        print("unheard")
    print("child", flush=True)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
ended.set()
thread.join()
print("parent", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    heard = [line for line in done.stdout.splitlines() if line != "unheard"]
    assert (done.stderr, heard) == ("", ["child", "parent"])


def test_no_descriptor_is_left_open() -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("this system has no /proc")
    before = len(list(folder.iterdir()))
    for _ in range(10):
        with quiet():
            pass
    assert len(list(folder.iterdir())) == before


@pytest.mark.parametrize("code", ["import os; os.close(2)", "import sys; sys.stderr = None"])
def test_a_process_without_stderr(code: str) -> None:
    code += "\nfrom edgeface.quiet import quiet\nwith quiet():\n    print('ran')\nprint('on')"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert (run.returncode, run.stdout) == (0, "ran\non\n")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system has no /proc")
def test_ctrl_c_at_any_line_of_a_decoding(hopper_path: Path) -> None:
    """Ctrl-C leaves stderr, OpenCV's log level, the handler of SIGINT and the number of open
    descriptors as they were."""
    program = """
import os, signal, sys
from pathlib import Path
import cv2
from edgeface.images.reading import decode_image
photo = Path(sys.argv[1]).read_bytes()
decode_image(photo)
def state():
    log, asked = cv2.utils.logging.getLogLevel(), signal.getsignal(signal.SIGINT)
    return os.fstat(2).st_ino, len(os.listdir("/proc/self/fd")), log, asked
def trace(frame, event, arg):
    global left
    if "edgeface" not in frame.f_code.co_filename:
        return None
    left -= event == "line"
    if event == "line" and left == 0:
        signal.raise_signal(signal.SIGINT)
    return trace
before, at, left = state(), 0, 0
while left <= 0:
    at, stopped = at + 1, False
    left = at
    sys.settrace(trace)
    try:
        decode_image(photo)
    except KeyboardInterrupt:
        stopped = True
    sys.settrace(None)
    assert stopped == (left <= 0), at
    assert state() == before, at
print("whole" if at > 50 else at)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(hopper_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")
