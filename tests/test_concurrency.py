"""One Detector in many threads gives only right boxes, may be closed at any moment, and never hangs
after a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeface import zoo
from edgeface.backends import export_targets
from edgeface.bundle import Bundle

pytest.importorskip("torch", reason="torch is not installed")
ROOT = Path(__file__).parents[1]
RUNTIMES = ("torch", *export_targets())
LIMIT_S = 600

START = textwrap.dedent("""
    import gc, os, sys, threading
    import numpy as np
    from skimage import data
    from edgeface import Detector, EdgefaceError
    from edgeface.runners import RunnerClosedError
    model, threads = sys.argv[1], 8
    photo = np.ascontiguousarray(data.astronaut())
    images = [np.ascontiguousarray(np.roll(photo, 20 * i, axis=1)) for i in range(threads)]
    def opened():
        size = None if os.path.isdir(model) else 160
        return Detector.open(model, threads=2, score_threshold=0.3, size=size)
    def same(a, b):
        return np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)
    detector = opened()
    wanted = [detector.detect(image) for image in images]
    assert len({found.boxes.tobytes() for found in wanted}) == threads, "photos that differ"
    """)

TOGETHER = START + textwrap.dedent("""
    def work(i):
        for _ in range(int(sys.argv[2])):
            try:
                if not same(detector.detect(images[i]), wanted[i]):
                    wrong.append("other boxes")
            except RunnerClosedError:
                return
            except Exception as error:
                wrong.append(repr(error))
    wrong = []
    for after_s in map(float, sys.argv[3:] or [-1]):
        crowd = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        for thread in crowd:
            thread.start()
        if after_s >= 0:
            threading.Event().wait(after_s)
            detector.close()
            other = opened()  # in memory that the first one had
            assert same(other.detect(photo), wanted[0])
        for thread in crowd:
            thread.join()
        if after_s >= 0:
            detector = other
    print("wrong:", len(wrong), *sorted(set(wrong)))
    """)

SIGNALS = START + textwrap.dedent("""
    import random, signal
    random.seed(0)
    detector.close()
    def stop(*_):
        raise KeyboardInterrupt
    def close(*_):
        detector.close()
    for handler, error in ((stop, KeyboardInterrupt), (close, RunnerClosedError)):
        signal.signal(signal.SIGALRM, handler)
        ended = 0
        for _ in range(int(sys.argv[2])):
            detector = opened()
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.02))
            try:
                with detector:
                    while True:
                        detector.detect(photo)
            except error:
                ended += 1
        print(f"{error.__name__}: {ended}")
""")

FORKS = START + textwrap.dedent("""
    def said(detect):
        try:
            return "right" if same(detect(), wanted[0]) else "wrong"
        except EdgefaceError as error:
            return str(error)
    def drop():
        global detector
        del detector
        gc.collect()
    in_the_child = {
        "detects": lambda: said(lambda: detector.detect(photo)),
        "opens": lambda: said(lambda: opened().detect(photo)),
        "closes": lambda: detector.close(),
        "drops": drop,
        "ends": lambda: None,
    }
    for name, function in in_the_child.items():
        child = os.fork()
        if child == 0:
            print(name, function(), sep=": ", flush=True)
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, (name, status)
        assert same(detector.detect(photo), wanted[0]), "the parent is as it was"
    """)


@pytest.fixture(params=RUNTIMES)
def model(request: pytest.FixtureRequest, exported: Callable[..., Bundle]) -> str:
    """A network's name, which torch runs, or the folder of a Bundle."""
    return zoo.names()[0] if request.param == "torch" else str(exported(request.param).path)


def run(code: str, *arguments: object, limit_s: float = LIMIT_S) -> list[str]:
    """Lines printed by ``code`` in a process of its own, because it may crash or hang."""
    found = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=limit_s,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert found.returncode == 0, (found.returncode, found.stderr[-2000:])
    return found.stdout.splitlines()


@pytest.mark.parametrize("calls", [20, pytest.param(400, marks=pytest.mark.slow)])
def test_eight_threads_see_only_their_own_boxes(model: str, calls: int) -> None:
    assert run(TOGETHER, model, calls) == ["wrong: 0"]


def test_closed_while_eight_threads_detect(model: str) -> None:
    assert run(TOGETHER, model, 1_000_000, 0, 0.05, 0.3) == ["wrong: 0"]


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarms")
def test_stopped_or_closed_by_a_signal_while_it_detects(model: str) -> None:
    """A signal handler raises KeyboardInterrupt, as Ctrl-C does, or closes the Detector and lets
    the interrupted call go on; then ``detect`` raises RunnerClosedError."""
    assert run(SIGNALS, model, 8) == ["KeyboardInterrupt: 8", "RunnerClosedError: 8"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork_it_works_or_says_why_not(model: str) -> None:
    said = dict(line.split(": ", 1) for line in run(FORKS, model, limit_s=120))
    assert "start processes with spawn" in said.pop("detects")
    opens = said.pop("opens")
    assert opens == "right" or "start processes with spawn" in opens
    assert said == dict.fromkeys(("closes", "drops", "ends"), "None")
