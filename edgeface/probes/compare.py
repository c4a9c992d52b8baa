"""Compares two files of one network, tensor by tensor on one photo, to find where they part.

Probes (:mod:`edgeface.probes`) run both files on the same letterboxed photo and return all tensors.
Files whose tensors have the same names (one target, or OpenVINO and the ONNX it was made from) are
paired by name. Others are aligned: tensors of equal shape and sign pair up in order of execution,
such that the sum of similarities is largest. ::

    A  conv ---- relu ---- conv ---- add ---- relu     ONNX: one operator each
                  |         |                  |
    B       conv + relu -- conv -------- add + relu    TFLite: fused, some of A have no partner

Per pair: the largest absolute difference, the relative RMS = rms(A - B) / std(A), and the
signal-to-noise ratio 10 log10(sum A^2 / sum (A - B)^2) in dB. The files part at the first pair
whose relative RMS exceeds the tolerance:

======================  ====  ====================================================================
files                   tol.  because
======================  ====  ====================================================================
fp32 with fp32          1e-3  other orders of summation give 2e-5 at most; a wrong weight or
                              padding 1e-2 and more
fp16 with fp32 or fp16  1e-2  weights are rounded by up to 2^-11: 2e-3 at most
int8 with anything      0.3   256 levels per tensor: 0.1 in most layers, 0.24 at most in heads
                              that see no face
======================  ====  ====================================================================

("At most": of edgeface-n and four published networks on 25 development photos. With a tolerance of
0.1, a sound int8 file parts on 22 of them.)

Errors of INT8 grow layer by layer, so the first pair beyond the tolerance says little about the
cause. The pair that raises the error most above all pairs before it is therefore named as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.architecture.architecture import Architecture
from edgeface.bundle import Bundle
from edgeface.decode import head_layout
from edgeface.errors import OptionError, counted
from edgeface.images import letterbox
from edgeface.options import check_number
from edgeface.pages.figures import literal, new_figure, save_figure
from edgeface.probes import Probe, TensorInfo, open_probe
from edgeface.probes.align import Side, align
from edgeface.types import Floats

TOLERANCES = {"fp32": 1e-3, "fp16": 1e-2, "int8": 0.3}
"""precision of the coarser file -> default tolerance"""


@dataclass(frozen=True)
class Pair:
    """One tensor of A and its partner in B."""

    a: TensorInfo
    b: TensorInfo
    shape: tuple[int, ...]
    """shape of A's tensor"""
    max_abs: float
    """largest absolute difference"""
    rel_rms: float
    """rms(A - B) / std(A); infinite where either has NaN or infinity"""
    snr_db: float
    """infinite for equal tensors"""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dict; figures that are not finite are None."""
        return {
            "a": vars(self.a),
            "b": vars(self.b),
            "shape": list(self.shape),
            "max_abs": _finite(self.max_abs),
            "rel_rms": _finite(self.rel_rms),
            "snr_db": _finite(self.snr_db),
        }


@dataclass(frozen=True)
class Comparison:
    """All pairs in order of execution of A, the input first."""

    a: str
    """label of A: folder name of a Bundle, or a zoo model in torch"""
    b: str
    tolerance: float
    """largest accepted relative RMS"""
    pairs: tuple[Pair, ...]
    alone_a: tuple[str, ...]
    """layers of A whose tensor has no partner in B"""
    alone_b: tuple[str, ...]

    @property
    def parting(self) -> int | None:
        """Index of the first pair beyond the tolerance; None if there is none."""
        return next(
            (i for i, pair in enumerate(self.pairs) if not pair.rel_rms <= self.tolerance), None
        )

    @property
    def jump(self) -> int | None:
        """Index of the pair that raises the error most above all before it; None if all agree."""
        before, best, found = 0.0, 0.0, None
        for i, pair in enumerate(self.pairs):
            if pair.rel_rms - before > best:
                best, found = pair.rel_rms - before, i
            before = max(before, pair.rel_rms)
            if math.isinf(before):
                break
        return found

    def before(self, index: int) -> float:
        """Largest relative RMS of all pairs before ``index``."""
        return max((pair.rel_rms for pair in self.pairs[:index]), default=0.0)

    def sentences(self) -> list[str]:
        """The result in words: where A and B part, the largest jump, how many tensors are alone."""
        lines = []
        if self.parting is None:
            worst = max(self.pairs, key=lambda pair: pair.rel_rms)
            lines.append(
                f"A and B agree: {counted(len(self.pairs), 'tensor')} within {self.tolerance:g},"
                f" the largest relative RMS is {worst.rel_rms:.3g} at {_both(worst)}"
            )
        else:
            pair = self.pairs[self.parting]
            lines.append(
                f"A and B part at {_both(pair)}: relative RMS {pair.rel_rms:.3g}, tolerance "
                f"{self.tolerance:g}, {self.before(self.parting):.3g} at most before it"
            )
        if (
            self.jump is not None and self.pairs[self.jump].rel_rms > self.tolerance / 10
        ):  # a smaller jump is noise
            pair = self.pairs[self.jump]
            lines.append(
                f"largest jump: {_both(pair)}, from {self.before(self.jump):.3g} to"
                f" {pair.rel_rms:.3g}"
            )
        if self.alone_a or self.alone_b:
            lines.append(
                f"not compared, because the other file has no such tensor: {len(self.alone_a)} of"
                f" A, {len(self.alone_b)} of B"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """The result as ``--format json`` prints it."""

        def named(index: int | None) -> dict[str, Any] | None:
            return (
                None
                if index is None
                else {
                    "index": index,
                    **self.pairs[index].to_json(),
                    "rel_rms_before": _finite(self.before(index)),
                }
            )

        return {
            "a": self.a,
            "b": self.b,
            "tolerance": self.tolerance,
            "equal": self.parting is None,
            "parting": named(self.parting),
            "largest_jump": named(self.jump),
            "alone": {"a": list(self.alone_a), "b": list(self.alone_b)},
            "pairs": [pair.to_json() for pair in self.pairs],
        }


@dataclass(frozen=True)
class Subject:
    """One of the two files or networks to compare, before it is opened."""

    label: str
    model: str
    architecture: Architecture
    size: tuple[int, int] | None
    """(width, height) in px; None: any"""
    default_size: tuple[int, int]
    precision: str
    outputs: Mapping[str, str]
    """edgeface's name of an output -> name of a tensor or layer of the probe"""
    weights: str | None
    """SHA-256 of the weights file; None: random weights"""
    open: Callable[[], Probe]

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Subject:
        """Subject of an exported file."""
        from edgeface import zoo

        manifest = bundle.manifest
        network = manifest.architecture.name
        own = manifest.model == zoo.own_name(network, manifest.weights.sha256)
        size = (manifest.input.width, manifest.input.height)
        return cls(
            bundle.path.resolve().name,
            network if own else manifest.model,  # without digits, as for the weights file itself
            manifest.architecture,
            None if manifest.input.dynamic else size,
            size,
            manifest.precision,
            manifest.outputs,
            None if manifest.weights.random else manifest.weights.sha256,
            lambda: open_probe(bundle),
        )

    @classmethod
    def find(cls, name: Path | str) -> Subject:
        """Subject of a Bundle folder or ready file, or of a zoo name or weights file in torch.

        Raises BundleError, ModelError.
        """
        from edgeface import zoo

        path = Path(name)
        if path.is_dir() or not zoo.is_network(name):
            # verify=False: the probe checks the bytes that it loads.
            return cls.of_bundle(Bundle.open(zoo.bundle_folder(path), verify=False))
        choice = zoo.resolve(name)
        architecture = choice.architecture
        return cls(
            f"{name} in torch",
            architecture.name,
            architecture,
            None,
            (640, 480),
            "fp32",
            {output: output for output in head_layout(architecture).output_names},
            choice.sha256,
            lambda: _torch_probe(str(name)),
        )


def compare(
    a: Subject, b: Subject, image: NDArray[np.uint8], tolerance: float | None = None
) -> Comparison:
    """Run ``image`` (uint8 RGB [H, W, 3], any size) through both and pair their tensors.

    tolerance: relative RMS; None takes the larger one of :data:`TOLERANCES` for the two precisions.
    Raises OptionError for different networks, different sizes or an invalid tolerance, and what
    opening a probe raises.
    """
    if tolerance is None:
        tolerance = max(TOLERANCES[subject.precision] for subject in (a, b))
    check_number("--tolerance", tolerance, 0, 1000)
    _check_same_network(a, b)
    batch = letterbox(image, *_common_size(a, b))[0][None]
    with a.open() as probe_a, b.open() as probe_b:
        return compare_sides(
            a.label,
            Side.look(probe_a, batch, a.outputs),
            b.label,
            Side.look(probe_b, batch, b.outputs),
            tolerance,
        )


def compare_sides(label_a: str, a: Side, label_b: str, b: Side, tolerance: float) -> Comparison:
    """Pair the tensors of two sides and measure the pairs."""
    matched = align(a, b, tolerance)
    pairs = tuple(
        _measure(
            a.tensors[i], b.tensors[j], a.values[a.tensors[i].name], b.values[b.tensors[j].name]
        )
        for i, j in matched
    )
    partners_a, partners_b = {i for i, _ in matched}, {j for _, j in matched}
    return Comparison(
        label_a,
        label_b,
        tolerance,
        pairs,
        tuple(t.layer for i, t in enumerate(a.tensors) if i not in partners_a),
        tuple(t.layer for j, t in enumerate(b.tensors) if j not in partners_b),
    )


def plot_comparison(path: Path | str, comparison: Comparison) -> None:
    """Plot the relative RMS of every pair in order, with tolerance, largest jump and parting.

    Writes a PNG or SVG. Raises MissingExtraError without matplotlib, OutputError if ``path`` cannot
    be written.
    """
    errors = np.array([pair.rel_rms for pair in comparison.pairs])
    top = max(
        1e-7, 10 * comparison.tolerance, 2 * float(errors[np.isfinite(errors)].max(initial=0))
    )
    errors = np.clip(
        np.nan_to_num(errors, nan=top, posinf=top), 1e-8, top
    )  # a log scale has no zero
    figure = new_figure(11, 5)
    axes = figure.subplots()
    axes.semilogy(errors, ".-", lw=0.8, label="relative RMS, at least 1e-8")
    axes.axhline(
        comparison.tolerance,
        color="tab:gray",
        ls="--",
        lw=1,
        label=f"tolerance {comparison.tolerance:g}",
    )
    marks = [
        ("largest jump", comparison.jump, "tab:orange", "^"),
        ("they part", comparison.parting, "tab:red", "o"),
    ]
    for what, index, colour, marker in marks:
        if index is not None:
            label = literal(f"{what}: {comparison.pairs[index].a.layer[-60:]}")
            axes.semilogy(index, errors[index], marker, ms=9, color=colour, label=label)
    step = max(1, len(errors) // 40)
    ticks = range(0, len(errors), step)
    axes.set_xticks(
        ticks, [literal(comparison.pairs[i].a.layer[-28:]) for i in ticks], rotation=90, fontsize=6
    )
    axes.set(ylabel="rms(A - B) / std(A)", ylim=(5e-9, 2 * top))
    axes.set_title(literal(f"A: {comparison.a}\nB: {comparison.b}"), fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)


def _torch_probe(name: str) -> Probe:
    from edgeface.probes.torch import TorchProbe

    return TorchProbe.open(name)


def _check_same_network(a: Subject, b: Subject) -> None:
    if a.model != b.model:
        raise OptionError(
            f"A is {a.model} and B is {b.model}: two networks share no tensors: compare files"
            " of one"
        )
    if a.architecture != b.architecture:
        raise OptionError(
            f"A and B are both called {a.model} but have different architectures: compare files"
            " that were exported from one network"
        )


def _common_size(a: Subject, b: Subject) -> tuple[int, int]:
    """(width, height) in px that both accept. Raises OptionError if there is none.

    A file that accepts any size takes the other's size."""
    if a.size and b.size and a.size != b.size:
        raise OptionError(
            f"A takes {a.size[0]}x{a.size[1]} px and B {b.size[0]}x{b.size[1]}: export both at one"
            " size"
        )
    return a.size or b.size or a.default_size


def _measure(a: TensorInfo, b: TensorInfo, x: Floats, y: Floats) -> Pair:
    first, second = (value.astype(np.float64).ravel() for value in (x, y))
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        same = np.array_equal(first, second, equal_nan=True)
        return Pair(
            a,
            b,
            x.shape,
            0.0 if same else math.inf,
            0.0 if same else math.inf,
            math.inf if same else -math.inf,
        )
    error = first - second
    noise, power = float(np.mean(error**2)), float(np.mean(first**2))
    if noise == 0:
        return Pair(a, b, x.shape, 0.0, 0.0, math.inf)
    scale = float(first.std()) or math.sqrt(power)  # rms for a constant tensor, whose std is 0
    return Pair(
        a,
        b,
        x.shape,
        float(np.abs(error).max()),
        math.sqrt(noise) / scale if scale else math.inf,
        10 * math.log10(power / noise) if power else -math.inf,
    )


def _both(pair: Pair) -> str:
    a, b = pair.a, pair.b
    return a.layer if a.layer == b.layer else f"{a.layer} (in B: {b.layer})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
