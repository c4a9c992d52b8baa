"""Report of a quantisation: accuracy, noise, size and latency compared with the float file."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.cli.output import print_table, say
from edgeface.errors import counted
from edgeface.evaluation.wider import HEIGHT_BINS_PX
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol
from edgeface.latency.session import measure
from edgeface.pages.figures import new_figure, save_figure
from edgeface.types import Progress
from quantize.budget import SETTINGS
from quantize.pipeline import Quantization

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILES = ("float", "int8")
FIGURES = {"median": "median", "90 %": "p90", "minimum": "min"}
PROTOCOL = Protocol(rounds=34, warm_up_s=3.0)
X86 = ("x86_64", "AMD64", "i686", "x86")


def measure_latency(done: Quantization, progress: Progress | None = None) -> dict[str, Measurement]:
    """Latency of the ``float`` and ``int8`` files on one thread; ``float`` is the reference. Raises
    DeviceError."""
    jobs = [Job(str(done.float_bundle.path)), Job(str(done.bundle.path))]
    return dict(zip(FILES, measure(jobs, PROTOCOL, reference=0, progress=progress), strict=True))


def speed_sentence(exact: Measurement, int8: Measurement, machine: str | None = None) -> str:
    """One sentence on the speed of INT8, by the rule of all latency ratios: within 10 % is a tie.

    exact, int8: records of one run; the reference is ``exact``. machine: architecture, by default
    this computer's.
    """
    found = int8.ratio
    assert found is not None
    figures = f"{int8.network_ms.median:.1f} against {exact.network_ms.median:.1f} ms"
    figures += f", ratio {found.value:.2f}, {found.low:.2f} to {found.high:.2f}"
    figures += "" if exact.valid and int8.valid else "; not to be quoted"
    if found.verdict == "faster":
        return f"INT8 is {1 / found.value:.2f} times as fast as float on this CPU ({figures})"
    verdict = "is slower than float" if found.verdict == "slower" else "and float tie"
    on_x86 = (machine or platform.machine()) in X86
    advice = "it can pay on ARM, so measure there" if on_x86 else "use the float file here"
    return f"INT8 {verdict} on this CPU ({figures}): {advice}"


def as_json(done: Quantization, latency: dict[str, Measurement]) -> dict[str, Any]:
    """The result as ``--format json`` prints it; ``latency`` is empty if it was not measured."""
    manifest = done.bundle.manifest
    size, float_size = done.bundle.size_bytes, done.float_bundle.size_bytes
    return {
        "path": str(done.bundle.path),
        "float_path": str(done.float_bundle.path),
        "model": manifest.model,
        "target": manifest.target,
        "width": manifest.input.width,
        "height": manifest.input.height,
        "files": manifest.files,
        "bytes": size,
        "float_bytes": float_size,
        "ratio": round(size / float_size, 4),
        "scale": done.calibration["method"],
        "images": done.calibration["images"],
        "layers": done.layers,
        "accuracy": done.accuracy,
        "drop": drop_points(done.accuracy),
        "latency": {name: record.to_json(samples=False) for name, record in latency.items()},
        "speed": speed_sentence(latency["float"], latency["int8"]) if latency else None,
    }


def drop_points(accuracy: dict[str, Any]) -> dict[str, float | None] | None:
    """AP points lost in easy, medium and hard, each None if no face counts; None without measured
    accuracy."""
    if not accuracy["float"]:
        return None
    return {name: _drop(value, accuracy["int8"][name]) for name, value in accuracy["float"].items()}


def print_report(done: Quantization, latency: dict[str, Measurement]) -> None:
    """Print the result as text on stdout."""
    result, accuracy = as_json(done, latency), done.accuracy
    kept, unable = accuracy["reverted_layers"], accuracy["float_layers"]
    lines = {
        "bundle": result["path"],
        "file": (
            f"{' + '.join(result['files'])}, {result['bytes']:,} bytes, {result['ratio']:.3f} of"
            f" fp32 ({result['float_bytes']:,})"
        ),
        "ranges": f"{result['scale']} over {counted(result['images'], 'photo')}",
        "layers": f"{done.layers - len(kept)} of {done.layers + len(unable)} in INT8",
    }
    if kept:
        lines["reverted"] = f"kept in float to hold the budget: {', '.join(kept)}"
    if unable:
        lines["float"] = f"INT8 cannot carry: {', '.join(unable)}"
    for label, text in lines.items():
        say(f"{label:<10} {text}")
    _print_accuracy(accuracy)
    _print_noise(_head_noise(done))
    if "landmark_shift" in accuracy:
        shift = 100 * accuracy["landmark_shift"]
        say(f"landmarks  moved by {shift:.2f} % of a face's side on average")
    if latency:
        _print_latency(latency)
        say(f"           {result['speed']}")
    say(f"next       edgeface detect photo.jpg --model {shlex.quote(result['path'])}")


def _print_latency(latency: dict[str, Measurement]) -> None:
    say("latency    ms of the network, one thread, the two in turn")
    _print_figures(
        FILES,
        [
            (label, *(f"{getattr(latency[name].network_ms, field):.2f}" for name in FILES))
            for label, field in FIGURES.items()
        ],
    )
    for reason in dict.fromkeys(
        reason for record in latency.values() for reason in record.invalid_reasons
    ):
        say(f"           not to be quoted: {reason}")


def _print_accuracy(accuracy: dict[str, Any]) -> None:
    if not accuracy["float"]:
        say(f"accuracy   {accuracy['note'].replace('not measured', 'accuracy was not measured')}")
        return
    say(
        f"accuracy   AP on {counted(accuracy['images'], 'photo')}; budget {accuracy['max_drop']:g}"
        " points in the worst of easy, medium and hard; by face height in px"
    )
    exact, int8 = _in_order(accuracy, "float"), _in_order(accuracy, "int8")
    _print_figures(
        tuple(exact),
        [
            ("float", *(_text(v, ".4f") for v in exact.values())),
            ("int8", *(_text(v, ".4f") for v in int8.values())),
            ("drop, points", *(_text(_drop(exact[name], int8[name]), ".2f") for name in exact)),
        ],
    )


def _in_order(accuracy: dict[str, Any], which: str) -> dict[str, float | None]:
    """AP by setting and face height in the usual order; a manifest has its keys sorted."""
    return {
        name: (accuracy[which] | accuracy["by_height"][which])[name]
        for name in (*SETTINGS, *HEIGHT_BINS_PX)
    }


def _head_noise(done: Quantization) -> dict[str, float]:
    return {
        head: done.accuracy["snr_db"][head]
        for head in done.bundle.manifest.head_layout.output_names
    }


def _print_noise(snr_db: dict[str, float]) -> None:
    say("noise      signal-to-noise ratio of each head against the float file")
    _print_figures(tuple(snr_db), [("dB", *(f"{db:.1f}" for db in snr_db.values()))])


def _print_figures(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print_table(("", *names), rows, right=names, indent=11)


def _drop(exact: float | None, int8: float | None) -> float | None:
    return None if exact is None or int8 is None else round(100 * (exact - int8), 4)


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def plot(path: Path, done: Quantization) -> None:
    """Plot AP of both files by setting and face height, and the signal-to-noise ratio of each head.

    Raises MissingExtraError without matplotlib, OutputError if ``path`` cannot be written.
    """
    accuracy = done.accuracy
    measured = bool(accuracy["float"])
    figure = new_figure(11 if measured else 5, 4.2)
    panels = figure.subplots(
        1, 2 if measured else 1, squeeze=False, width_ratios=(7, 4) if measured else None
    )[0]
    if measured:
        _draw_accuracy(panels[0], accuracy)
    heads = _head_noise(done)
    panels[-1].bar(list(heads), list(heads.values()), color="C2")
    panels[-1].tick_params("x", labelrotation=90)  # nine names overlap if horizontal
    panels[-1].set(ylabel="dB", title="signal-to-noise ratio of the heads")
    figure.suptitle(f"{done.bundle.path.name}: INT8 against float")
    save_figure(figure, path, dpi=110)


def _draw_accuracy(axes: Axes, accuracy: dict[str, Any]) -> None:
    for i, name in enumerate(FILES):
        values = _in_order(accuracy, name)
        places = [place + 0.4 * i for place in range(len(values))]
        axes.bar(places, [ap or 0 for ap in values.values()], 0.4, label=name)
        if i:
            axes.set_xticks(
                [place - 0.2 for place in places],
                [f"{label} px" if label in HEIGHT_BINS_PX else label for label in values],
            )
    axes.set(
        ylim=(0, 1),
        ylabel="AP",
        title=f"accuracy on {counted(accuracy['images'], 'photo')}, by setting and face height",
    )
    axes.legend()
    axes.grid(alpha=0.3, axis="y")
