"""``python -m benchmarks.install WHEEL``: seconds from pip install in a fresh environment to the
first box, and how large the environment is. Includes downloads: pip's cache is not used."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from benchmarks.common import Printed, environment
from edgeface.cli.flags import Argument, program_of
from edgeface.cli.output import emit, table
from edgeface.errors import DataError

PHOTO = Path(__file__).parents[1] / "docs" / "photo.jpg"


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    wheel: Annotated[Path, Argument("WHEEL")]
    """wheel built by make package"""
    extras: str = "tflite,cli"
    """extras to install with it"""


def timed(*command: object) -> float:
    """Seconds that ``command`` takes. Raises DataError with its last line if it fails."""
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DataError(f"{Path(str(command[0])).name} failed: {last}")
    return time.perf_counter() - start


def _run(o: Options) -> None:
    if not o.wheel.is_file():
        raise DataError(f"no wheel at {o.wheel}: run: make package")
    with tempfile.TemporaryDirectory(prefix="edgeface-") as folder:
        venv = Path(folder) / "venv"
        timed(sys.executable, "-m", "venv", venv)
        pip = (venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-cache-dir")
        install_s = timed(*pip, f"{o.wheel}[{o.extras}]")
        first_box_s = timed(venv / "bin" / "edgeface", "detect", PHOTO, "--format", "json")
        files = [path for path in venv.rglob("*") if path.is_file() and not path.is_symlink()]
        mb = sum(path.stat().st_size for path in files) / 1e6
    result = {
        "extras": o.extras,
        "install_s": install_s,
        "first_box_s": first_box_s,
        "to_first_box_s": install_s + first_box_s,
        "mb": mb,
        "environment": environment(),
    }
    heads = ("extras", "pip install s", "edgeface detect s", "to the first box s", "venv MB")
    row = (o.extras, *(f"{v:.1f}" for v in (install_s, first_box_s, install_s + first_box_s, mb)))
    emit(result, table(heads, [row]), o.format, o.save)


main = program_of(Options, "python -m benchmarks.install", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
