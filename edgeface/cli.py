"""The ``edgeface`` command: one thin function per verb.

Results go to stdout as a table or as JSON, everything else to stderr. A user's mistake is one line on stderr and exit
code 2. Heavy imports happen inside the verb that needs them, so that a device needs no more than it uses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from edgeface.backends import has_module
from edgeface.errors import EdgefaceError, ImageError, MissingExtraError, OptionError, OutputError
from edgeface.options import field_help, parse_size
from edgeface.training.options import TrainOptions

try:
    import typer
    from rich.console import Console
    from rich.table import Table
except ImportError:  # a device that only embeds the library
    print(f"error: {MissingExtraError('typer', 'cli', 'the command line')}", file=sys.stderr)
    raise SystemExit(2) from None

DEFAULT_MODEL = "edgeface-n"
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
                  help="Tiny face detectors for ARM and x86 CPUs: detect, evaluate, train.")

Model = Annotated[str, typer.Option(help="Zoo name (see `edgeface models`) or the folder of an exported Bundle.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of the runtime.")]
Format = Annotated[str, typer.Option(help="How the result is printed: table or json.")]
F = TypeVar("F", bound=Callable[..., Any])


def _check_format(format: str) -> None:
    if format not in ("table", "json"):
        raise OptionError(f"unknown format {format!r} (known: table, json)")


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=1))


def _print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], right: Iterable[str] = ()) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row))
    width = None if sys.stdout.isatty() else 200  # piped output is for a file or a tool: nothing is cut
    Console(highlight=False, markup=False, width=width).print(table)


@app.command(epilog="Examples:\n\nedgeface detect photo.jpg --save out.jpg\n\n"
                    "edgeface detect holiday/ --save marked/ --format json > faces.json\n\n"
                    "edgeface detect clip.mp4 --save marked.mp4 --model dist/edgeface-n-tflite-fp32-640x480")
def detect(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Photos, folders, video files, or camera:0.")],
    model: Model = DEFAULT_MODEL,
    save: Annotated[Path | None, typer.Option(
        help="Write the photo or video with boxes here; a folder for several.")] = None,
    score_threshold: Annotated[float, typer.Option(help="Report faces that score at least this, 0 to 1.")] = 0.5,
    nms_threshold: Annotated[float, typer.Option(help="Of two boxes with a higher IoU keep the better one.")] = 0.45,
    size: Annotated[str | None, typer.Option(
        help="Long side in px that photos are scaled to, or 'original'; exported files have their own.")] = None,
    threads: Threads = 1,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames in all.")] = None,
    format: Format = "table",
) -> None:
    """Find the faces in photos, folders, videos or a camera."""
    from edgeface.detector import Detector
    from edgeface.images import sources
    from edgeface.saving import Saver

    _check_format(format)
    saver = Saver(save, images) if save else contextlib.nullcontext()
    failures: list[ImageError] = []

    def failed(error: ImageError) -> None:
        failures.append(error)
        print(f"error: {error}", file=sys.stderr)

    found: list[dict[str, Any]] = []
    with _hushed():
        opened = Detector.open(model, threads, score_threshold, nms_threshold, _long_side(size))
    with opened as detector, _Ticker() as tick, saver as keep:
        try:
            for name, image in sources(images, failed):
                faces = detector.detect(image)
                found.append({"image": name, "faces": faces.to_json()})
                tick(name)
                if keep:
                    keep.add(name, image, faces)
                if len(found) == max_frames:
                    break
        except KeyboardInterrupt:
            print("stopped: what follows is what was found so far", file=sys.stderr)
    if format == "json":
        _print_json(found)
    else:
        _print_faces(found)
    if failures:
        raise typer.Exit(2)


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep what a runtime's C++ side says while it loads off stderr: our own one line tells what matters."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _require_torch(extra: str, purpose: str) -> None:
    if not has_module("torch"):
        raise MissingExtraError("torch", extra, purpose)


def _long_side(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text


def _print_faces(found: list[dict[str, Any]]) -> None:
    rows: list[tuple[Any, ...]] = []
    for item in found:
        rows += [(item["image"], f"{face['score']:.3f}", *(f"{v:.1f}" for v in face["box"])) for face in item["faces"]]
        if not item["faces"]:
            rows.append((item["image"], "no face", "", "", "", ""))
    if rows:
        _print_table(("image", "score", "x1", "y1", "x2", "y2"), rows, right=("score", "x1", "y1", "x2", "y2"))


class _Ticker:
    """A line on a terminal's stderr that says how many frames are done; silent elsewhere."""

    def __enter__(self) -> Callable[[str], None]:
        self.count = 0
        self.status = Console(stderr=True).status("starting")
        self.status.start()
        return self.tick

    def tick(self, name: str) -> None:
        self.count += 1
        self.status.update(f"{self.count} done: {name}")

    def __exit__(self, *error: object) -> None:
        self.status.stop()


@app.command("eval", epilog="Examples:\n\nedgeface eval --data wider\n\n"
                            "edgeface eval --data wider --model dist/edgeface-n-onnx-fp32-640x480 --plot pr.png")
def evaluate(
    data: Annotated[Path, typer.Option(
        help="WIDER FACE folder with WIDER_val/images and eval_tools/ground_truth.")],
    model: Model = DEFAULT_MODEL,
    scale: Annotated[str, typer.Option(help="640 (long side, the 'VGA' protocol) or original.")] = "640",
    heights: Annotated[str, typer.Option(
        help="Bins of face height: annotated (px of the photo) or evaluated (px at --scale).")] = "annotated",
    plot: Annotated[Path | None, typer.Option(help="Draw the precision-recall curves into this PNG.")] = None,
    predictions: Annotated[Path | None, typer.Option(
        help="Also write the boxes here, in the folders of text files that the official tool reads.")] = None,
    threads: Threads = 1,
    format: Format = "table",
) -> None:
    """Official WIDER FACE figures of any model on the validation photos that are there."""
    from edgeface.evaluation import evaluate_model, plot_curves, save_predictions

    _check_format(format)
    done = evaluate_model(model, data, scale, threads, heights=heights, progress=True)
    if plot:
        plot_curves(plot, done.report, done.result)
    if predictions:
        save_predictions(predictions, done.predictions.detections)
    report = done.report.to_json()
    if format == "json":
        _print_json(report)
        return
    names = ("easy", "medium", "hard", *report["by_height"])
    values = (report["easy"], report["medium"], report["hard"], *report["by_height"].values())
    _print_table(("", *names), [("AP", *(None if v is None else f"{v:.4f}" for v in values)),
                                ("faces", *(report["faces"].get(name) for name in names))], right=names)
    print(f"{report['model']}, {report['images']} images, heights in {heights} px; {done.report.protocol}")


@app.command()
def models(
    size: Annotated[str, typer.Option(help="Input WIDTHxHEIGHT in px that MACs are counted at.")] = "640x480",
    format: Format = "table",
) -> None:
    """List the networks with parameters and multiply-accumulates."""
    from edgeface import zoo
    from edgeface.models.registry import listed

    _check_format(format)
    width, height = parse_size(size)
    _require_torch("zoo", "counting parameters and MACs")
    from edgeface.models.complexity import count

    rows: list[dict[str, Any]] = []
    for name in listed():
        complexity = count(name, width, height)
        rows.append({"name": name, "params": complexity.params, "macs": complexity.macs,
                     "weights": name in zoo.names()})
    if format == "json":
        _print_json(rows)
        return
    _print_table(("name", "params", f"MACs at {size}", "weights"),
                 [(r["name"], f"{r['params'] / 1e6:.4f} M", f"{r['macs'] / 1e6:.1f} M",
                   "shipped" if r["weights"] else "-") for r in rows], right=("params", f"MACs at {size}"))
    print("The published networks exist twice: as published, and with '-bn' appended for a head that exports well.")


@app.command()
def doctor(format: Format = "table") -> None:
    """Say what is installed, what is missing and how to get it."""
    from edgeface.doctor import diagnose

    _check_format(format)
    report = diagnose()
    if format == "json":
        _print_json(report)
        return
    print(f"edgeface {report['edgeface']}, Python {report['python']}, {report['platform']}")
    _print_table(("package", "version", "for", "get it with"),
                 [(t["package"], t["version"] or "missing", t["for"], t["fix"] or "") for t in report["tools"]])
    _print_table(("target", "runtime", "version", *report["backends"][0]["precisions"], "get it with"),
                 [(b["target"], b["runtime"], b["version"] or "missing",
                   *("on" if state == "on" else "off" for state in b["precisions"].values()), b["fix"] or "")
                  for b in report["backends"]])
    for reason, where in _reasons(report["backends"]).items():
        print(f"off: {', '.join(where)}: {reason}")
    print("models with weights:", ", ".join(report["models_with_weights"]) or "none")


def _reasons(backends: list[dict[str, Any]]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for row in backends:
        for precision, state in row["precisions"].items():
            if state != "on":
                reasons.setdefault(state, []).append(f"{row['target']} {precision}")
    return reasons


def _with_options(cls: type) -> Callable[[F], F]:
    """Give a command one flag per plain field of a dataclass, with the field's own text as help.

    The command receives them together, as one instance, in its last parameter.
    """
    hints, texts = get_type_hints(cls), field_help(cls)
    plain = [f for f in dataclasses.fields(cls) if hints[f.name] in (int, float, str, bool)]

    def decorate(command: F) -> F:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
        flags = [inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default,
                                   annotation=Annotated[hints[f.name], typer.Option(help=texts.get(f.name, ""))])
                 for f in plain]

        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            options = cls(**{f.name: values.pop(f.name) for f in plain})
            command(**values, options=options)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + flags
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped  # type: ignore[return-value]

    return decorate


@app.command(epilog="Examples:\n\nedgeface train --data wider --out runs/mine\n\n"
                    "edgeface train --data photos --annotations faces.csv --out runs/mine --samples 100000\n\n"
                    "torchrun --nproc-per-node 2 -m edgeface train --data wider --out runs/mine\n\n"
                    "Killed at any moment, the same command goes on where the run was.")
@_with_options(TrainOptions)
def train(
    data: Annotated[Path, typer.Option(help="WIDER FACE folder, or with --annotations a folder of photos.")],
    out: Annotated[Path, typer.Option(help="Folder of this run; a run that is there is resumed.")],
    model: Annotated[str, typer.Option(help="Network, as `edgeface models` lists them.")] = DEFAULT_MODEL,
    annotations: Annotated[Path | None, typer.Option(
        help="Boxes: WIDER FACE text, or CSV with image,x1,y1,x2,y2. Default: WIDER FACE's own training list.")] = None,
    cache: Annotated[Path | None, typer.Option(
        help="Folder for the decoded photos, about 1.5 MB each. Default: OUT/cache.")] = None,
    in_memory: Annotated[bool, typer.Option(
        help="Hold the decoded photos in memory instead of mapping the file.")] = False,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads per process; 0 leaves torch's own choice.")] = 0,
    device: Annotated[str, typer.Option(help="torch device: cpu or cuda.")] = "cpu",
    options: Any = None,
) -> None:
    """Train a network; writes weights, checkpoints, log and curves into --out."""
    from edgeface.models.registry import get_architecture

    architecture = get_architecture(model)
    _require_torch("train", "training")
    from edgeface.training import train_model

    cache = cache or out / "cache"
    if not train_model(architecture, options, data, out, annotations, cache, in_memory, threads, device):
        print("stopped: the state is saved, the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130)


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        app(prog_name="edgeface")
    except EdgefaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output, such as head, has enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  (kept open: the interpreter flushes it at exit)
    except OSError as error:
        print(f"error: {OutputError(str(error))}", file=sys.stderr)
        return 2
    return 0
