"""Finds the faces in every frame of every input, and reports failures and pace at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeface.cli.program import FAILED, Stopped
from edgeface.errors import EdgefaceError, ImageError, counted
from edgeface.images.ahead import ReadAhead
from edgeface.images.outputs import Looked, Outputs
from edgeface.images.scaling import Image
from edgeface.tracking import Tracker

if TYPE_CHECKING:
    from edgeface.cli.rows import Row, Rows
    from edgeface.cli.terminal import Terminal
    from edgeface.detector import Detector
    from edgeface.images.inputs import Input


class Look:
    """Runs a detector on all inputs; keeps counts, but no frames."""

    def __init__(self, terminal: Terminal, most: int | None, max_pixels: int) -> None:
        self._terminal, self._most, self._max_pixels = terminal, most, max_pixels
        self._inputs = self._failures = self._total = self._looked = 0
        self._stopped = False
        self._pace = _Pace()

    def failed(self, error: EdgefaceError) -> None:
        """Report and count an input that cannot be used."""
        self._inputs += 1
        self._failures += 1
        self._terminal.line(f"error: {error}")

    def at(
        self,
        inputs: Sequence[Input],
        detector: Detector,
        rows: Rows,
        outputs: Outputs,
        track: bool = False,
    ) -> None:
        """Process every frame, until Ctrl-C, the limit of frames, or a closed window."""
        counts = [source.count for source in inputs]
        self._total = min(sum(counts), self._most or sum(counts)) if all(counts) else 0
        self._inputs += len(inputs)
        try:
            for source in inputs:
                self._failures += self._look_at(source, detector, rows, outputs, track)
                if outputs.closed or self._looked == self._most:
                    return
        except KeyboardInterrupt:
            self._stopped = True

    def _look_at(
        self, source: Input, detector: Detector, rows: Rows, outputs: Outputs, track: bool
    ) -> bool:
        """Process one input. Returns True if it could not be read to its end or saved.

        Errors are reported as they happen, since a camera may run for weeks and end by a signal."""
        failed = False
        tracker = Tracker() if track and source.kind != "image" else None
        try:
            with self._frames(source) as frames:
                for name, image in frames:
                    looked = self._find(source, name, image, detector, tracker)
                    rows.add(_row(looked))
                    failed |= self._tell(outputs.add(looked))
                    unwanted = rows.gone and source.kind != "image" and not outputs.any
                    if unwanted or outputs.closed or self._looked == self._most:
                        break
        except ImageError as error:
            failed |= self._tell([error])
        return self._tell(outputs.finish()) or failed

    def _tell(self, errors: Sequence[EdgefaceError]) -> bool:
        """Print the errors. Returns True if there are any."""
        for error in errors:
            self._terminal.line(f"error: {error}")
        return bool(errors)

    @contextmanager
    def _frames(self, source: Input) -> Generator[Iterator[tuple[str, Image]], None, None]:
        """Yield an iterator of (name, image) of the frames of ``source``.

        Frames of a video are read while the one before is processed; a live source gives the
        latest."""
        frames = source.frames(self._max_pixels)
        if source.kind == "image":
            yield frames
            return
        with ReadAhead(frames, latest=source.live) as ahead, self._pace.running():
            try:
                yield iter(ahead)
            finally:
                self._pace.skipped += ahead.skipped

    def _find(
        self, source: Input, name: str, image: Image, detector: Detector, tracker: Tracker | None
    ) -> Looked:
        begun = time.perf_counter()
        faces = detector.detect(image)
        moving = source.kind != "image"
        if moving:
            self._pace.add(time.perf_counter() - begun)
        self._looked += 1
        if not sys.stdout.isatty():  # on a terminal, the rows show the progress
            self._terminal.tick("detecting", self._looked, self._total, name)
        numbers = tracker.update(faces) if tracker else None
        hidden = tracker.hidden() if tracker else None
        return Looked(name, image, faces, numbers, hidden, moving)

    def ended(self) -> int | None:
        """The exit code. Raises Stopped after Ctrl-C."""
        if self._pace.frames:
            self._terminal.note(str(self._pace))
        if self._stopped:
            raise Stopped(
                f"{counted(self._looked, 'image')} looked at, what was found there is printed"
            )
        if self._failures and self._inputs > 1:
            self._terminal.line(
                f"error: {self._failures} of {self._inputs} inputs could not be read whole, or not"
                " saved; what was found in the others is printed"
            )
        return FAILED if self._failures else None


class _Pace:
    """How fast frames of videos were processed."""

    def __init__(self) -> None:
        self.frames = self.skipped = 0
        self._wall_s = self._finding_s = self._slowest_s = 0.0

    @contextmanager
    def running(self) -> Generator[None, None, None]:
        """Add the duration of the block to the total time."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._wall_s += time.perf_counter() - begun

    def add(self, finding_s: float) -> None:
        """Count a frame whose faces took ``finding_s`` to find."""
        self.frames += 1
        self._finding_s += finding_s
        self._slowest_s = max(self._slowest_s, finding_s)

    def __str__(self) -> str:
        text = (
            f"{counted(self.frames, 'frame')} in {self._wall_s:.1f} s,"
            f" {self.frames / self._wall_s:.1f} FPS; finding faces took"
            f" {1e3 * self._finding_s / self.frames:.1f} ms a frame, at most"
            f" {1e3 * self._slowest_s:.1f} ms"
        )
        if self.skipped:
            text += f"; {counted(self.skipped, 'frame')} skipped to keep up"
        return text


def _row(looked: Looked) -> Row:
    faces = looked.faces.to_json()
    if looked.numbers is not None:
        for face, number in zip(faces, looked.numbers.tolist(), strict=True):
            face["id"] = number
    return {"image": looked.name, "faces": faces}
