"""``python -m benchmarks.browser BUNDLE``: a .tflite file in LiteRT.js in headless Chromium beside
the same file in LiteRT, turn by turn, one thread each.

LiteRT.js takes only float32 input: give an INT8 Bundle one with `edgeface export --target tflite
--for mediapipe --bundle BUNDLE`. Needs Chromium, node, and in --packages what `npm install --prefix
examples/web` brings, with playwright-core. Both run on the same core; a pass is a tensor in,
outputs copied out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Annotated, ClassVar

import numpy as np

from benchmarks.against import photo_of, report
from benchmarks.common import Printed, environment
from benchmarks.peers import pinned
from edgeface import zoo
from edgeface.bundle import Bundle
from edgeface.cli.demo import PAGE, make_server
from edgeface.cli.flags import Argument, program_of
from edgeface.cli.output import emit
from edgeface.cli.terminal import Terminal
from edgeface.errors import BundleError, OptionError
from edgeface.options import Range, check_ranges
from edgeface.runners.tflite import load_runtime
from edgeface.types import Doubles

WARM_UP = 5
"""passes of each subject before the first round"""
Passes = Callable[[int], Doubles]
"""number of passes -> ms of each pass"""


@dataclass(frozen=True, kw_only=True)
class Options(Printed):
    """Options of the command line."""

    bundle: Annotated[Path, Argument("BUNDLE")]
    """folder of a Bundle for LiteRT, of one size"""
    packages: Path = PAGE / "node_modules"
    """folder of the npm packages, with playwright-core"""
    rounds: int = 30
    """number of rounds, each with a slice of both"""
    per_round: int = 5
    """passes per slice"""
    ranges: ClassVar[dict[str, Range]] = {"rounds": Range(2, 10**6), "per_round": Range(1, 10**6)}

    def __post_init__(self) -> None:
        check_ranges(self)


def native(bundle: Bundle) -> Passes:
    interpreter = load_runtime().interpreter(model_path=str(bundle.primary), num_threads=1)
    interpreter.allocate_tensors()
    (source,), outputs = interpreter.get_input_details(), interpreter.get_output_details()
    photo = photo_of(bundle).astype(np.float32).reshape(source["shape"])

    def timed(_: int) -> float:
        start = time.perf_counter()
        interpreter.set_tensor(source["index"], photo)
        interpreter.invoke()
        for output in outputs:
            interpreter.get_tensor(output["index"])
        return 1e3 * (time.perf_counter() - start)

    return lambda count: np.array([timed(i) for i in range(count)])


@contextmanager
def in_browser(bundle: Bundle, packages: Path) -> Iterator[Passes]:
    """Yields the Passes of LiteRT.js in headless Chromium, which raise BundleError if the file does
    not run there. Raises OptionError if Chromium, node or playwright-core is missing."""
    chromium, node = shutil.which("chromium"), shutil.which("node")
    playwright = packages / "playwright-core"
    if not (chromium and node and playwright.is_dir()):
        raise OptionError(
            f"chromium, node and {playwright} are needed: apt install chromium nodejs; npm install"
            f" --prefix {packages.parent} playwright-core"
        )
    folders = {f"models/{bundle.path.name}": bundle.path, "node_modules": packages, "": PAGE}
    with make_server(folders, 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        config = {
            "playwright": str(playwright.resolve()),
            "chromium": chromium,
            "address": f"http://127.0.0.1:{server.server_address[1]}/",
            "model": f"/models/{bundle.path.name}/{bundle.manifest.primary}",
        }
        command = [node, str(Path(__file__).with_suffix(".mjs")), json.dumps(config)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdin and process.stdout
            asked, answers = process.stdin, process.stdout

            def passes(count: int) -> Doubles:
                asked.write(f"{count}\n")
                asked.flush()
                if line := answers.readline():
                    return np.array(json.loads(line))
                raise BundleError(f"{bundle.path} does not run in the browser, as it says above")

            yield passes
            asked.close()
        server.shutdown()


def _run(o: Options) -> None:
    bundle = Bundle.open(zoo.bundle_folder(o.bundle))
    if bundle.manifest.target != "tflite" or bundle.manifest.input.dtype != "float32":
        raise BundleError(
            f"{o.bundle} does not run in LiteRT.js, which takes .tflite files with a float32 input:"
            " run: edgeface export --target tflite --for mediapipe --bundle BUNDLE"
        )
    with Terminal(steps=True) as terminal, pinned(1), in_browser(bundle, o.packages) as browser:
        subjects = {"LiteRT": native(bundle), "LiteRT.js": browser}
        for passes in subjects.values():
            passes(WARM_UP)
        samples: dict[str, list[Doubles]] = {name: [] for name in subjects}
        for done in range(o.rounds):
            terminal.tick("rounds", done, o.rounds)
            for name, passes in subjects.items():
                samples[name].append(passes(o.per_round))
    size = bundle.manifest.input
    result, text = report(samples, size.width, size.height, 1)
    result |= {"bundle": bundle.path.name, "environment": environment("ai-edge-litert")}
    emit(result, text, o.format, o.save)


main = program_of(Options, "python -m benchmarks.browser", __doc__, _run)


if __name__ == "__main__":
    sys.exit(main())
