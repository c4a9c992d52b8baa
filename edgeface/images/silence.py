"""What OpenCV and the libraries in it say while they work: kept off stderr, and heard where it is
the only sign that a file is damaged."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator

import cv2

from edgeface.images.headers import SCAN, jpeg_segments
from edgeface.interrupts import put_off
from edgeface.quiet import STDERR

DAMAGE = re.compile(
    rb"premature end|bad (Huffman|arithmetic) code|Inconsistent progression|instead of RST",
    re.IGNORECASE,
)
"""what libjpeg says of a file of which it then fills in the rest"""
LEFT = re.compile(rb"(\d+) extraneous bytes")
"""what it says of data that are left over once the image is full"""
FEW = 8
"""bytes that may be left over"""
LIBRARIES = re.compile(
    rb"(Corrupt JPEG data|Premature end|Inconsistent progression|Warning: unknown"
    rb" JFIF|Invalid SOS|Unknown Adobe|libpng error|libpng warning)[^\n]*\n?"
)
"""what libjpeg and libpng say"""
_LOCK = threading.RLock()
"""one listens at a time: file descriptors belong to the whole process"""
_LEVEL_LOCK = threading.Lock()
_LEVELS: list[int] = []
"""what OpenCV's log was set to, the program's own first, where each block in ``opencv_quiet`` began
"""


@contextlib.contextmanager
def opencv_quiet() -> Iterator[None]:
    """Keep OpenCV's own log off stderr: what went wrong is told by our one line.

    A Ctrl-C waits for the end of the block, as it does for OpenCV anyway: halfway into one, or out,
    it would leave the process without the log, or, around :func:`listening`, without stderr.
    """
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    with put_off():
        if logging is None:
            yield
            return
        with _LEVEL_LOCK:
            _LEVELS.append(logging.getLogLevel())
            logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            with _LEVEL_LOCK:  # whichever of several threads is the last puts back the first
                level = _LEVELS.pop()
                if not _LEVELS:
                    logging.setLogLevel(level)


class Heard:
    """What was written to file descriptor 2."""

    text = b""

    def tells_damage(self, data: bytes) -> bool:
        """Did libjpeg find that the ``data`` of a file are not whole?"""
        found = LEFT.search(self.text)
        if found is None:
            return DAMAGE.search(self.text) is not None
        count = int(found[1])
        scan = next((at for marker, at in jpeg_segments(data) if marker == SCAN), 0)
        left = data[: data.find(b"\xff\xd9", scan)][-count:]
        return count >= FEW and len(set(left)) > 1  # some cameras fill up with one byte


@contextlib.contextmanager
def listening() -> Iterator[Heard]:
    """Hear what is written to file descriptor 2 while the block runs; all but what libjpeg and
    libpng say is passed on.

    libjpeg goes on after damage, fills in grey, and tells of it there alone. A program that is
    started meanwhile keeps the file for its stderr: what it says later is lost, and harms nothing,
    as a pipe that nobody reads would.
    """
    heard = Heard()
    with _LOCK, _file() as file:
        try:
            with STDERR.led_to(file, listens=True):
                yield heard
        finally:
            os.lseek(file, 0, os.SEEK_SET)
            heard.text = os.read(file, os.fstat(file).st_size)
            rest = LIBRARIES.sub(b"", heard.text)
            if rest:
                with contextlib.suppress(OSError):
                    os.write(2, rest)


@contextlib.contextmanager
def _file() -> Iterator[int]:
    """Descriptor of a file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("edgeface")
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            yield file.fileno()


def _before_fork() -> None:
    """A child has the forking thread alone: what another one holds then, it would hold for ever."""
    _LOCK.acquire()
    _LEVEL_LOCK.acquire()


def _after_fork() -> None:
    _LEVEL_LOCK.release()
    _LOCK.release()


def _after_fork_in_child() -> None:
    if _LEVELS:  # of threads that are not there
        cv2.utils.logging.setLogLevel(_LEVELS[0])
        _LEVELS.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
