"""What OpenCV and the libraries in it say while they work: kept off stderr, and heard where it is
the only sign that a file is damaged."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator

import cv2

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
"""file descriptors belong to the whole process"""


@contextlib.contextmanager
def opencv_quiet() -> Iterator[None]:
    """Keep OpenCV's own log off stderr: what went wrong is told by our one line."""
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging is None:
        yield
        return
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
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
        left = data[: data.find(b"\xff\xd9", data.find(b"\xff\xda"))][-count:]
        return count >= FEW and len(set(left)) > 1  # some cameras fill up with one byte


@contextlib.contextmanager
def listening() -> Iterator[Heard]:
    """Hear what is written to file descriptor 2 while the block runs; all but what libjpeg and
    libpng say is passed on.

    libjpeg goes on after damage, fills in grey, and tells of it there alone.
    """
    heard = Heard()
    with _LOCK, contextlib.ExitStack() as stack:
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)  # who writes more than it holds loses that, and goes on
        with _as_stderr(writer):
            yield heard
        with contextlib.suppress(BlockingIOError):  # nothing was said
            heard.text = os.read(reader, 1 << 16)
        rest = LIBRARIES.sub(b"", heard.text)
        if rest:
            with contextlib.suppress(OSError):
                os.write(2, rest)


@contextlib.contextmanager
def _as_stderr(descriptor: int) -> Iterator[None]:
    """``descriptor`` takes the place of 2, and is closed afterwards."""
    try:
        saved = os.dup(2)
    except OSError:  # the caller closed it
        saved = -1
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield
    finally:
        if saved < 0:
            os.close(2)
        else:
            os.dup2(saved, 2)
            os.close(saved)
