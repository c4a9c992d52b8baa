"""FaceNet: backbone, neck and head as one module on raw pixels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeface.architecture.architecture import Architecture, InputNorm
from edgeface.architecture.specs import Backbone, S3FDHeadSpec, SCRFDHeadSpec
from edgeface.architecture.strides import S3FD_STRIDES, STRIDES
from edgeface.errors import ModelError
from edgeface.models.asfd import AutoFEM
from edgeface.models.asfd_backbone import ASFDBackbone
from edgeface.models.blocks import ConvNorm, Extractor, require_maps, require_sizes
from edgeface.models.convnet import ConvNet
from edgeface.models.eresfd import EResNet, SepFPN
from edgeface.models.extd import EXTD
from edgeface.models.head import SCRFDHead, build_head
from edgeface.models.neck import build_neck
from edgeface.models.plainnet import PlainNet
from edgeface.models.s3fd import S3FDHead
from edgeface.models.scrfd import MobileNetV1, ResNetV1e


class FaceNet(nn.Module):
    """Raw 0-255 RGB float32 [N, 3, H, W] -> (cls_8, box_8, ..., box_32); H, W multiples of 32.

    With landmarks, kps_8 follows box_8 and so on, in the order of :attr:`HeadLayout.output_names`.
    S3FD family: outputs cls_4 to box_128 for any H and W; a map at stride s has ceil(H / s) rows.
    A dual head in training returns the outputs of the second shot, then those of the first.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.normalise: nn.Module = Normalise(architecture.input)
        self.backbone = build_backbone(architecture.backbone)
        if isinstance(self.backbone, PlainNet) and isinstance(architecture.head, SCRFDHeadSpec):
            self.backbone.draw_as_published()  # DamoFD's: our searches have other heads
        self.neck = build_neck(architecture.neck, self.backbone.channels)
        levels = S3FD_STRIDES if isinstance(architecture.head, S3FDHeadSpec) else STRIDES
        require_maps(f"head {architecture.head.kind}", len(self.backbone.channels), len(levels))
        self.head: nn.Module = build_head(architecture.head, self.neck.out_channels)
        self.dual = isinstance(architecture.head, S3FDHeadSpec) and architecture.head.dual
        if self.dual and not isinstance(self.neck, AutoFEM):
            raise ModelError(
                f"head {architecture.head.kind}: dual is for neck autofem only, leave it out"
            )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone(self.normalise(image))
        if self.training and self.dual:
            assert isinstance(self.neck, AutoFEM)
            first, second = self.neck.shots(features)
            return (*self.head(second), *self.head(first))
        outputs: tuple[Tensor, ...] = self.head(self.neck(features))
        return outputs


class Normalise(nn.Module):
    """``(pixel - mean) / std``."""

    mean: Tensor

    def __init__(self, spec: InputNorm) -> None:
        super().__init__()
        means = spec.mean if isinstance(spec.mean, tuple) else (spec.mean,)
        if (
            not all(isinstance(v, (int, float)) for v in (*means, spec.std))
            or not spec.std
            or len(means) not in (1, 3)
        ):
            raise ModelError(
                f"input: mean {spec.mean!r} and std {spec.std!r}, accepted: a number each (the mean"
                " also as three, of R, G and B), std not 0"
            )
        self.std = spec.std
        self.register_buffer("mean", torch.tensor(means).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class PadWithMean(nn.Module):
    """Pads raw images with ``mean`` after the normalisation was folded.

    Zero padding of normalised images stood for pixels of this value.
    """

    def __init__(self, mean: float, padding: int) -> None:
        super().__init__()
        self.mean, self.padding = mean, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (self.padding,) * 4, value=self.mean)


BACKBONES: dict[str, tuple[Callable[[Any], Extractor], int, int]] = {
    "convnet": (ConvNet, 4, 3),
    "plainnet": (PlainNet, 0, 0),
    "mobilenetv1": (MobileNetV1, 6, 4),
    "resnetv1e": (ResNetV1e, 5, 4),
    "extd": (EXTD, 1, 0),
    "eresfd": (EResNet, 2, 5),
    "asfd": (ASFDBackbone, 7, 4),
}
"""Backbone kind -> its class, number of widths and number of depths."""


def build_backbone(spec: Backbone) -> Extractor:
    """Build the backbone of ``spec``. Raises ModelError on a specification that cannot be built."""
    kind, widths, depths = BACKBONES[spec.kind]
    where = f"backbone {spec.kind}"
    # A convnet stage has a convolution before its residuals, so it may have none; the stages of
    # other backbones consist of their blocks alone.
    for name, length, least in (
        ("widths", widths, 1),
        ("depths", depths, 0 if kind is ConvNet else 1),
    ):
        values = getattr(spec, name, ())
        if not isinstance(values, tuple) or len(values) != length:
            raise ModelError(f"{where}: {name} is {values!r}, accepted: {length} whole numbers")
        require_sizes(where, least, **{f"{name}[{i}]": value for i, value in enumerate(values)})
    return kind(spec)


def deployable(model: FaceNet) -> FaceNet:
    """Return an evaluation copy with batch norm, scales and input normalisation folded.

    They become part of the convolutions. The outputs are those of ``model.eval()`` up to float32
    rounding. ``model`` itself is unchanged.
    """
    net = copy.deepcopy(model).eval().float()
    with torch.no_grad():
        convs = [m for m in net.modules() if isinstance(m, ConvNorm)]
        for layer in convs:
            layer.fold()
        net.normalise = _fold_normalise(convs[0].conv, net.architecture.input)
        if isinstance(net.head, (SCRFDHead, S3FDHead)):
            net.head = net.head.folded()
        if isinstance(net.neck, (SepFPN, AutoFEM)):
            net.neck = net.neck.folded()
    return net


def _fold_normalise(conv: nn.Conv2d, spec: InputNorm) -> nn.Module:
    """Fold ``(x - mean) / std`` into the first convolution; return what remains to run before it.

    W' = W / std, b' = b - sum(W) mean / std. Means that differ by channel remain a subtraction: no
    runtime can pad each channel with a different value.
    """
    weight = conv.weight.double()
    if isinstance(spec.mean, tuple):
        conv.weight = nn.Parameter((weight / spec.std).float())
        return Normalise(InputNorm(spec.mean, 1.0))
    bias = torch.zeros(conv.out_channels).double() if conv.bias is None else conv.bias.double()
    conv.bias = nn.Parameter((bias - weight.sum((1, 2, 3)) * spec.mean / spec.std).float())
    conv.weight = nn.Parameter((weight / spec.std).float())
    padding = int(conv.padding[0])
    if spec.mean == 0 or padding == 0:
        return nn.Identity()
    conv.padding = (0, 0)
    return PadWithMean(spec.mean, padding)


def build_detector(architecture: Architecture, seed: int) -> FaceNet:
    """Build the network with initial weights drawn from ``seed``.

    Leaves torch's global random state unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FaceNet(architecture)
