"""DDSAR's detector score computed from the outputs of convolutions instead of their inputs."""

from __future__ import annotations

from collections.abc import Sequence

from edgeface.architecture import Architecture
from edgeface.architecture.layers import output_widths
from edgeface.architecture.specs import S3FDHeadSpec
from edgeface.search.scores.ddsar import ALPHA, SIDE_PX, WEIGHTS, Conv, expressivity
from edgeface.search.scores.macs import STRIDES, by_stage


def outputs(
    architecture: Architecture, alpha: float = ALPHA, weights: Sequence[float] = WEIGHTS
) -> float:
    """The detector score where c_l and h_l are those of the output of convolution l, as in the
    theorem behind DDSAR.

    A stem of stride 4 is c2 and reads 3 channels, for which the published form gives ln(3 / 3) = 0.
    """
    stages, head = (
        by_stage(architecture, SIDE_PX, SIDE_PX, lambda part: part.path),
        architecture.head,
    )
    assert not isinstance(head, S3FDHeadSpec), "whose layers are not listed"
    total = 0.0
    for stride, weight in zip(STRIDES, weights[1:], strict=True):
        convs = [
            Conv(layer.out_channels, layer.width, layer.kernel)
            for layer in stages[stride]
            if layer.kernel
        ]
        if stride > STRIDES[0]:
            convs = convs[: -len(output_widths(head))]  # no ReLU follows the outputs
        total += weight * (expressivity(convs) + alpha * sum(conv.kernel for conv in convs))
    return total / sum(weights[1:])
