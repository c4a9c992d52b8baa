"""Detection heads: pyramid maps -> (cls_8, box_8, cls_16, ..., box_32), each [N, C, H/s, W/s].

``cls`` carries ``anchors`` logits per cell (the sigmoid belongs to the decoder), ``box`` carries
``4 * anchors`` distances left, top, right, bottom from the anchor point, in strides. With landmarks
each level also has ``kps``, after its ``box``: ``10 * anchors`` offsets x, y of five points from
the anchor point, in strides.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from edgeface.architecture.specs import Head, PlainHeadSpec, S3FDHeadSpec, SCRFDHeadSpec
from edgeface.architecture.strides import LANDMARKS, STRIDES
from edgeface.errors import ModelError
from edgeface.models.blocks import ConvNorm, conv_bias, require_output_kernel, require_sizes
from edgeface.models.s3fd import S3FDHead

TowerSpec = PlainHeadSpec | SCRFDHeadSpec
PRIOR_LOGIT = -math.log((1 - 0.01) / 0.01)
"""Initial classification bias: every cell starts at a face probability of 0.01 (RetinaNet, section
4.1)."""


class LevelScale(nn.Module):
    """A learned factor on the box output of one level, folded into the convolution on export."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm that also accepts one value per group, as an input of 32x32 px gives."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class Tower(nn.Module):
    """``stack`` 3x3 convolutions (or depthwise 3x3 + 1x1) with normalisation and ReLU."""

    def __init__(self, in_channels: int, spec: TowerSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(spec.stack):
            if spec.depthwise:
                layers.append(
                    ConvNorm(
                        in_channels,
                        in_channels,
                        3,
                        groups=in_channels,
                        norm=_norm(spec, in_channels),
                    )
                )
                layers.append(
                    ConvNorm(in_channels, spec.channels, 1, norm=_norm(spec, spec.channels))
                )
            else:
                layers.append(
                    ConvNorm(in_channels, spec.channels, 3, norm=_norm(spec, spec.channels))
                )
            in_channels = spec.channels
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


def _norm(spec: TowerSpec, channels: int) -> nn.Module:
    if spec.norm == "group":
        return GroupNorm(spec.groups, channels)
    if spec.norm == "batch":
        return nn.BatchNorm2d(channels)
    raise ModelError(f"unknown norm {spec.norm!r} (known: batch, group)")


class SharedTower(nn.Module):
    """A Tower that shares its convolutions among levels and has a batch norm for each level.

    Group normalisation computes its statistics on each level anew. One batch normalisation for all
    levels would train with the statistics of one level at a time and run with a mixture of three.
    With separate ones, training and inference use the statistics of the same level.
    """

    def __init__(self, in_channels: int, spec: TowerSpec) -> None:
        super().__init__()
        convs: list[ConvNorm] = []
        for conv in Tower(in_channels, spec).layers:
            assert isinstance(conv, ConvNorm)
            conv.norm, conv.relu = None, False
            convs.append(conv)
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(conv.conv.out_channels) for conv in convs) for _ in STRIDES
        )

    def forward(self, x: Tensor, level: int) -> Tensor:
        for conv, norm in zip(self.convs, self.norms[level].children(), strict=True):
            x = torch.relu(norm(conv(x)))
        return x

    def folded(self, level: int) -> nn.Sequential:
        """Return one level's tower (evaluation mode) as convolutions with folded batch norm."""
        layers = []
        for conv, norm in zip(self.convs, self.norms[level].children(), strict=True):
            layer = copy.deepcopy(conv)
            assert isinstance(layer, ConvNorm)
            layer.norm, layer.relu = norm, True
            layer.fold()
            layers.append(layer)
        return nn.Sequential(*layers)


class SCRFDHead(nn.Module):
    """One tower and 3x3 output convolutions shared by all levels, as in SCRFD and DamoFD.

    With ``norm="batch"`` the convolutions are shared and the normalisation is not
    (:class:`SharedTower`).
    """

    def __init__(self, in_channels: int, spec: TowerSpec) -> None:
        super().__init__()
        self.tower = (
            SharedTower(in_channels, spec) if spec.norm == "batch" else Tower(in_channels, spec)
        )
        self.cls = conv_bias(spec.channels, spec.anchors, 3)
        self.box = conv_bias(spec.channels, 4 * spec.anchors, 3)
        self.scales = nn.ModuleList(LevelScale() for _ in STRIDES)
        for conv in (m for m in self.tower.modules() if isinstance(m, nn.Conv2d)):
            nn.init.normal_(conv.weight, std=0.01)
        _init_output(self.cls, PRIOR_LOGIT)
        _init_output(self.box, 0.0)
        self.kps = _landmark_outputs(spec, 3)

    def folded(self) -> FoldedSCRFDHead:
        """Return an equivalent head with the level scales folded into the weights."""
        return FoldedSCRFDHead(self)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        for level, (x, scale) in enumerate(zip(maps, self.scales, strict=True)):
            x = self.tower(x, level) if isinstance(self.tower, SharedTower) else self.tower(x)
            outputs += [self.cls(x), scale(self.box(x)), *(kps(x) for kps in self.kps)]
        return tuple(outputs)


class FoldedSCRFDHead(nn.Module):
    """SCRFDHead for deployment: one box convolution per level, with the level scale in its weights.

    With group normalisation the tower stays shared. With batch normalisation each level has its own
    tower, with the normalisation folded in.
    """

    def __init__(self, head: SCRFDHead) -> None:
        super().__init__()
        tower, levels = head.tower, range(len(STRIDES))
        self.towers = nn.ModuleList(
            map(tower.folded, levels) if isinstance(tower, SharedTower) else [tower]
        )
        self.cls, self.kps = head.cls, head.kps
        self.box = nn.ModuleList(_scaled(head.box, scale) for scale in head.scales)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        for level, (x, box) in enumerate(zip(maps, self.box, strict=True)):
            x = self.towers[level % len(self.towers)](x)
            outputs += [self.cls(x), box(x), *(kps(x) for kps in self.kps)]
        return tuple(outputs)


def _scaled(layer: ConvNorm, scale: nn.Module) -> ConvNorm:
    """Return a copy of ``layer`` that computes ``scale(layer(x))``."""
    layer = copy.deepcopy(layer)
    assert isinstance(scale, LevelScale) and layer.conv.bias is not None
    with torch.no_grad():
        layer.conv.weight.mul_(scale.value)
        layer.conv.bias.mul_(scale.value)
    return layer


class PlainHead(nn.Module):
    """Separate tower and outputs on each level: only convolutions, normalisation and ReLU."""

    def __init__(self, in_channels: int, spec: PlainHeadSpec) -> None:
        super().__init__()
        self.tower = nn.ModuleList(Tower(in_channels, spec) for _ in STRIDES)
        width, anchors, kernel = spec.channels, spec.anchors, spec.kernel
        self.cls = nn.ModuleList(conv_bias(width, anchors, kernel) for _ in STRIDES)
        self.box = nn.ModuleList(conv_bias(width, 4 * anchors, kernel) for _ in STRIDES)
        for cls, box in zip(self.cls, self.box, strict=True):
            _init_output(cls, PRIOR_LOGIT)
            # Boxes start three strides wide; with distances of 0 they would overlap no face.
            _init_output(box, 1.5)
        self.kps = nn.ModuleList(_landmark_outputs(spec, spec.kernel) for _ in STRIDES)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        for x, tower, cls, box, kps in zip(
            maps, self.tower, self.cls, self.box, self.kps, strict=True
        ):
            x = tower(x)
            outputs += [cls(x), box(x), *(points(x) for points in kps.children())]
        return tuple(outputs)


def _landmark_outputs(spec: TowerSpec, kernel: int) -> nn.ModuleList:
    """A list with the convolution of the landmarks; empty for a network without landmarks."""
    layers = nn.ModuleList()
    if spec.landmarks:
        layers.append(conv_bias(spec.channels, 2 * spec.landmarks * spec.anchors, kernel))
        _init_output(layers[0], 0.0)
    return layers


def _init_output(layer: nn.Module, bias: float) -> None:
    assert isinstance(layer, ConvNorm) and layer.conv.bias is not None
    nn.init.normal_(layer.conv.weight, std=0.01)
    nn.init.constant_(layer.conv.bias, bias)


def build_head(spec: Head, in_channels: int) -> SCRFDHead | PlainHead | S3FDHead:
    """Build the head ``spec.kind``. Raises ModelError on a specification that cannot be built."""
    where = f"head {spec.kind}"
    require_sizes(where, channels=spec.channels)
    if isinstance(spec, S3FDHeadSpec):
        return S3FDHead(in_channels, spec)
    require_sizes(where, anchors=spec.anchors, stack=spec.stack)
    if spec.landmarks not in (0, LANDMARKS):
        raise ModelError(f"{where}: landmarks is {spec.landmarks}, accepted: 0 or {LANDMARKS}")
    if isinstance(spec, PlainHeadSpec):
        require_output_kernel(where, spec.kernel)
    if spec.norm == "group":
        require_sizes(where, groups=spec.groups)
        if spec.channels % spec.groups or (spec.depthwise and in_channels % spec.groups):
            raise ModelError(
                f"{where}: groups is {spec.groups}, accepted: a divisor of its channels "
                f"({spec.channels}; with depthwise also {in_channels})"
            )
    return (
        PlainHead(in_channels, spec)
        if isinstance(spec, PlainHeadSpec)
        else SCRFDHead(in_channels, spec)
    )
