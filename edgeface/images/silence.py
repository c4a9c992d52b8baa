"""Keeps messages of OpenCV and its libraries off stderr, and reads them if they are the only sign
that a file is damaged."""

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
"""messages of libjpeg about a file whose missing rest it fills in"""
LEFT = re.compile(rb"(\d+) extraneous bytes")
"""message of libjpeg about data left over after the image is complete"""
FEW = 8
"""number of left over bytes from which a file can count as damaged"""
LIBRARIES = re.compile(
    rb"(Corrupt JPEG data|Premature end|Inconsistent progression|Warning: unknown"
    rb" JFIF|Invalid SOS|Unknown Adobe|libpng error|libpng warning)[^\n]*\n?"
)
"""all messages of libjpeg and libpng, which are not passed on"""
_LOCK = threading.RLock()
"""one thread listens at a time: file descriptors belong to the whole process"""
_LEVEL_LOCK = threading.Lock()
_LEVELS: list[int] = []
"""log level of OpenCV at the start of each ``opencv_quiet`` block now running; the first is the
program's own"""


@contextlib.contextmanager
def opencv_quiet() -> Iterator[None]:
    """Keep OpenCV's own log off stderr: our one line reports errors.

    A Ctrl-C waits for the end of the block, as it does for OpenCV anyway. While the block is
    entered or left, it would leave the process without the log or, around :func:`listening`,
    without stderr.
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
            with _LEVEL_LOCK:  # the last of several threads restores the level
                level = _LEVELS.pop()
                if not _LEVELS:
                    logging.setLogLevel(level)


class Heard:
    """Text that was written to file descriptor 2."""

    text = b""

    def tells_damage(self, data: bytes) -> bool:
        """True if libjpeg reported that the ``data`` of a file are not complete."""
        found = LEFT.search(self.text)
        if found is None:
            return DAMAGE.search(self.text) is not None
        count = int(found[1])
        scan = next((at for marker, at in jpeg_segments(data) if marker == SCAN), 0)
        left = data[: data.find(b"\xff\xd9", scan)][-count:]
        return count >= FEW and len(set(left)) > 1  # some cameras pad with one repeated byte


@contextlib.contextmanager
def listening() -> Iterator[Heard]:
    """Collect what is written to file descriptor 2 during the block; at its end, all but messages
    of libjpeg and libpng are passed on.

    libjpeg continues after damage, fills in grey, and reports it on stderr only. A program started
    during the block keeps the collecting file as its stderr: its later messages are lost, but
    without harm, unlike with a pipe that nobody reads.
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
    """Descriptor of a file without a name, in memory if the system has such files."""
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
    """Take the locks: a child has only the forking thread, so a lock that another thread held would
    never be released in it."""
    _LOCK.acquire()
    _LEVEL_LOCK.acquire()


def _after_fork() -> None:
    _LEVEL_LOCK.release()
    _LOCK.release()


def _after_fork_in_child() -> None:
    if _LEVELS:  # blocks of threads that the child does not have
        cv2.utils.logging.setLogLevel(_LEVELS[0])
        _LEVELS.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
