"""OpenVINO INT8, by NNCF's post-training quantisation.

NNCF runs once for all layers and chooses where FakeQuantize nodes go and which ranges they have. A
layer to keep in float is restored afterwards: it gets its float weights back and reads the tensor
in front of the FakeQuantize, which stays only if another INT8 layer needs it
(:mod:`quantize.neighbours`)::

    Relu --> FakeQuantize --> Convolution int8    Relu -.-> FakeQuantize --> Convolution int8
                          '-> Convolution int8          '------------------> Convolution float
                                                                             (reverted)

With all layers reverted the file computes what the float file computes.

NNCF's bias correction is off: with it, the heads of edgeface-n were 0.5 to 4 dB noisier on
validation photos with no better AP, and in networks whose levels share a head, it broke the
coarsest level (14 dB instead of 34). Weights that read pixels are rounded here
(:mod:`quantize.rounding`).

NNCF measures ranges itself; our names for ways to choose a range select its estimators:

==============  ========================================================================
``mse``         HISTOGRAM: least squared error of the levels over a histogram of all photos
``percentile``  each photo's 99.99 % quantile at both ends, the widest over all photos
``max``         lowest and highest value over all photos
==============  ========================================================================
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from edgeface.bundle import Bundle
from edgeface.errors import QuantizeError
from edgeface.images import Image
from edgeface.quiet import unreported
from edgeface.runners.files import to_tensor
from edgeface.runners.openvino import layer_name, read_model
from edgeface.types import Progress, unseen
from export.openvino import ir_files, is_numbered
from export.request import require
from quantize.base import Quantized, Quantizer
from quantize.neighbours import Operator, int8_after, int8_before
from quantize.rounding import pixel_weights

PRESET = "mixed"
"""signed activations get a zero point, others do not; chosen by measurement over "performance",
which gives no activation a zero point"""
OUTLIERS = 1e-4
"""share of values that ``percentile`` leaves out at each end"""
CONVOLUTIONS = ("Convolution", "GroupConvolution")
UNABLE = ("MVN",)
"""operators that compute in float between INT8 layers"""
MOVING = ("MaxPool", "Pad", "Reshape", "Transpose")
"""NNCF puts FakeQuantize only in front of these operators, not between them and an INT8 layer that
follows, so that layer relies on it"""


class OpenVinoQuantizer(Quantizer):
    """Makes an IR with FakeQuantize nodes and int8 weights from an fp32 IR."""

    target = "openvino"
    scales = ("mse", "percentile", "max")
    distributions = ("nncf", "openvino")

    def __init__(
        self, bundle: Bundle, images: Sequence[Image], scale: str, progress: Progress = unseen
    ) -> None:
        require("quantising for openvino", "openvino", "nncf")
        self._name = bundle.manifest.model
        _, self._float = read_model(bundle)
        _require_finite(self._float, "the float model holds")
        inputs = _Photos(images, bundle.manifest.input.layout, progress)
        try:
            self._int8 = _nncf(self._float.clone(), inputs, len(images), scale)
        except Exception as error:  # whatever its version raises
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise QuantizeError(f"nncf cannot quantise this file: {reason}") from error
        inputs.finish()
        _require_finite(self._int8, "the float model computes, on the calibration photos,")
        _exact_pixels(self._int8)
        _round_pixel_weights(self._int8, self._float)
        _share_ends(self._int8)
        self._operators = _operators(self._int8)
        self._nodes = {
            layer_name(node): node.get_friendly_name() for node in _convolutions(self._int8)
        }

    @property
    def layers(self) -> tuple[str, ...]:
        carried = {op.name for op in self._operators if op.layer}
        return tuple(layer for layer, name in self._nodes.items() if name in carried)

    @property
    def float_layers(self) -> tuple[str, ...]:
        unable = {op.name for op in self._operators if not op.carried}
        return tuple(
            f"{_given_name(node)} ({node.get_type_name()})"
            for node in self._int8.get_ordered_ops()
            if node.get_friendly_name() in unable
        )

    def quantize(self, reverted: Collection[str] = ()) -> Quantized:
        self.require_known(reverted)
        model = self._int8.clone()
        if reverted:
            self._revert(model, {self._nodes[layer] for layer in reverted})
        return Quantized(ir_files(model, self._name))

    def _revert(self, model: Any, reverted: Collection[str]) -> None:
        originals = {node.get_friendly_name(): node for node in _convolutions(self._float)}
        before = int8_before(self._operators, reverted)
        after = int8_after(self._operators, _output_tensors(model), reverted)
        for node in model.get_ordered_ops():
            name, kind = node.get_friendly_name(), node.get_type_name()
            if name in reverted:
                _put_back(node, originals[name])
                _bypass(node)
            elif kind not in (*CONVOLUTIONS, "FakeQuantize") and not (
                name in after and (name in before or kind in MOVING)
            ):
                _bypass(node)


class _Photos:
    """The data set that NNCF iterates over: a tensor per photo, each reported to ``progress``."""

    def __init__(self, images: Sequence[Image], layout: str, progress: Progress) -> None:
        self._images, self._layout, self._progress = images, layout, progress
        self._done, self._total = 0, len(images)

    def __iter__(self) -> Iterator[Any]:
        for image in self._images:
            self._progress("quantising with NNCF", min(self._done, self._total), self._total)
            self._done += 1
            yield to_tensor(image[None], self._layout)

    def finish(self) -> None:
        self._progress("quantising with NNCF", self._total, self._total)


def _nncf(model: Any, photos: _Photos, count: int, scale: str) -> Any:
    """``openvino.Model`` in INT8. NNCF's log, progress bars and usage reports over the internet are
    turned off."""
    with unreported():
        import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters

    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # for NNCF's progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(photos),
            preset=nncf.QuantizationPreset(PRESET),
            subset_size=count,
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=_estimator(scale), disable_bias_correction=True
            ),
        )


def _estimator(scale: str) -> Any:
    from nncf.quantization import range_estimator as nncf_ranges

    kinds, over = nncf_ranges.StatisticsType, nncf_ranges.AggregatorType
    collect = nncf_ranges.StatisticsCollectorParameters
    choices: dict[str, Callable[[], Any]] = {
        "mse": lambda: nncf_ranges.RangeEstimatorParametersSet.HISTOGRAM,
        "percentile": lambda: nncf_ranges.RangeEstimatorParameters(
            collect(kinds.QUANTILE, over.MIN, quantile_outlier_prob=OUTLIERS),
            collect(kinds.QUANTILE, over.MAX, quantile_outlier_prob=OUTLIERS),
        ),
        "max": lambda: nncf_ranges.RangeEstimatorParameters(
            collect(kinds.MIN, over.MIN), collect(kinds.MAX, over.MAX)
        ),
    }
    return choices[scale]()


def _require_finite(model: Any, what: str) -> None:
    """Raise QuantizeError if a constant of ``model`` (weights, ends of ranges) is NaN or
    infinity."""
    for node in model.get_ordered_ops():
        if (
            node.get_type_name() == "Constant"
            and node.get_element_type().get_type_name() == "f32"
            and not np.isfinite(node.data).all()
        ):
            raise QuantizeError(
                f"{what} NaN or infinity in {node.get_friendly_name()}: check its weights"
            )


def _exact_pixels(model: Any) -> None:
    """Set the range of the input to 0 to 255, whatever the photos contain: each of the 256 levels
    is then a pixel value."""
    from openvino import opset13 as ops

    (image,) = model.inputs
    for used in image.get_target_inputs():
        node = used.get_node()
        if node.get_type_name() == "FakeQuantize" and node.get_attributes()["levels"] == 256:
            for port in range(1, 5):
                shape = tuple(node.input(port).get_shape())
                value = ops.constant(np.full(shape, 255 * (port % 2 == 0), np.float32))
                node.input(port).replace_source_output(value.output(0))


def _round_pixel_weights(model: Any, original: Any) -> None:
    """Round the weights of convolutions that read the image, directly or through Pad or Subtract,
    with :func:`quantize.rounding.pixel_weights`."""
    from openvino import opset13 as ops

    weights = {
        node.get_friendly_name(): node.input_value(1).get_node().data
        for node in _convolutions(original)
    }
    for node in _convolutions(model):
        source = node.input_value(0).get_node()
        while source.get_type_name() in ("FakeQuantize", "Pad", "Subtract"):
            source = source.input_value(0).get_node()
        if source.get_type_name() == "Parameter" and _has_int8_weights(node):
            rounded, scale = pixel_weights(weights[node.get_friendly_name()])
            steps = ops.convert(ops.constant(rounded), "f32")
            scaled = ops.multiply(steps, ops.constant(scale[:, None, None, None]))
            node.input(1).replace_source_output(scaled.output(0))


def _share_ends(model: Any) -> None:
    """Let the input and output ranges of each FakeQuantize share constants where they are equal:
    the .xml is a seventh smaller."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            for port in (3, 4):
                mine, other = (node.input_value(p).get_node() for p in (port, port - 2))
                if np.array_equal(mine.data, other.data):
                    node.input(port).replace_source_output(other.output(0))


def _convolutions(model: Any) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() in CONVOLUTIONS]


def _operators(model: Any) -> list[Operator]:
    """Nodes that compute something from the image, in order of execution.

    A tensor has the name of the node that computes it.
    """
    activations = {model.inputs[0].get_node().get_friendly_name()}
    found = []
    for node in model.get_ordered_ops():
        inputs = tuple(name for name in _sources(node) if name in activations)
        if not inputs or node.get_type_name() == "Result":
            continue  # computed from weights alone
        name, kind = node.get_friendly_name(), node.get_type_name()
        activations.add(name)
        layer = kind in CONVOLUTIONS and _has_int8_weights(node)
        carried = layer if kind in CONVOLUTIONS else kind not in UNABLE
        found.append(Operator(name, inputs, (name,), layer, carried))
    return found


def _given_name(node: Any) -> str:
    """Name of the ONNX operator that ``node`` is a part of: the last of its parts has the name."""
    while is_numbered(node.get_friendly_name()):
        users = [used.get_node() for used in node.output(0).get_target_inputs()]
        if len(users) != 1:
            break
        (node,) = users
    return layer_name(node)


def _sources(node: Any) -> list[str]:
    return [value.get_node().get_friendly_name() for value in node.input_values()]


def _output_tensors(model: Any) -> set[str]:
    return {name for result in model.get_results() for name in _sources(result)}


def _has_int8_weights(node: Any) -> bool:
    """True if the weights of a convolution come from an int8 constant.

    The chain: Convolution <- Multiply by the scales <- [Subtract <-] Convert <- int8 constant; a
    Reshape may be in between.
    """
    while node.get_input_size():
        first = 1 if node.get_type_name() in CONVOLUTIONS else 0
        node = node.input_value(first).get_node()
    return bool(node.get_element_type().get_type_name() in ("i8", "u8"))


def _put_back(node: Any, original: Any) -> None:
    """Give a convolution the weights of the float model, and the Add behind it the bias."""
    from openvino import opset13 as ops

    weight = original.input_value(1).get_node()
    node.input(1).replace_source_output(
        ops.constant(weight.data, name=weight.get_friendly_name()).output(0)
    )
    mine, theirs = _bias(node), _bias(original)
    assert (mine is None) == (theirs is None), "quantising added a bias"
    if mine is not None and theirs is not None:
        mine.replace_source_output(
            ops.constant(theirs.get_source_output().get_node().data).output(0)
        )


def _bias(node: Any) -> Any:
    """The input of the Add that takes the bias of a convolution; None without a bias."""
    for used in node.output(0).get_target_inputs():
        added = used.get_node()
        if (
            added.get_type_name() == "Add"
            and added.input_value(1).get_node().get_type_name() == "Constant"
        ):
            return added.input(1)
    return None


def _bypass(node: Any) -> None:
    """Let ``node`` read the tensors in front of its FakeQuantize inputs."""
    for port in node.inputs():
        source = port.get_source_output().get_node()
        if source.get_type_name() == "FakeQuantize":
            port.replace_source_output(source.input_value(0))
