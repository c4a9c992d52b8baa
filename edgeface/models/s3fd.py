"""Head of the S3FD family (EXTD, EResFD, ASFD): a prior box per cell on six levels, strides 4-128.

The authors' networks give two or four class outputs per cell, from which a softmax yields the face
probability, and box outputs that are multiplied by variances. This head returns the same
information in fewer numbers, in the form that all networks of this project share:

    cls   logit = largest face output - largest background output,
          since softmax(b, f) = sigmoid(f - b)
    box   x, y, w, h of the SSD coding, multiplied by the variances .1, .1, .2, .2

On the finest level, which has most of the cells and the smallest faces, three background outputs
compete (max-out background label, S3FD: Zhang et al., ICCV 2017, section 3.3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeface.architecture.specs import S3FDHeadSpec
from edgeface.architecture.strides import S3FD_STRIDES
from edgeface.errors import ModelError
from edgeface.models.blocks import ConvNorm, conv_bias, require_output_kernel, require_sizes

VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""of x, y, w and h in the SSD coding"""
COMPETING = 3
"""number of outputs of a class from which max-out takes the largest"""
MAXOUTS = ("", "out", "in-out")


class S3FDHead(nn.Module):
    """Six maps -> (cls_4, box_4, ..., cls_128, box_128), each [N, 1 or 4, ceil(H/s), ceil(W/s)].

    Each level has output convolutions of its own. Published sizes: EXTD 3x3, EResFD 1x1. ASFD has
    two towers before them, one for class and one for box, whose weights the levels share.
    """

    def __init__(self, in_channels: int, spec: S3FDHeadSpec) -> None:
        super().__init__()
        _check(spec, in_channels)
        self.counts = tuple(_outputs(spec.maxout, level) for level in range(len(S3FD_STRIDES)))
        """(background, face) outputs of each level"""
        self.loc_tower, self.conf_tower = _tower(spec), _tower(spec)
        self.loc = nn.ModuleList(conv_bias(in_channels, 4, spec.kernel) for _ in S3FD_STRIDES)
        self.conf = nn.ModuleList(
            conv_bias(in_channels, sum(counts), spec.kernel) for counts in self.counts
        )
        for conv in (
            m for m in (*self.loc.modules(), *self.conf.modules()) if isinstance(m, nn.Conv2d)
        ):
            nn.init.xavier_uniform_(conv.weight)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def raw(self, maps: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
        """(loc, conf) of each level as in the authors' networks, before max-out and variances."""
        return [
            (loc(self.loc_tower(x)), conf(self.conf_tower(x)))
            for x, loc, conf in zip(maps, self.loc, self.conf, strict=True)
        ]

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        for (loc, conf), (background, _) in zip(self.raw(maps), self.counts, strict=True):
            face = conf[:, background:].amax(1, keepdim=True)
            logits = face - conf[:, :background].amax(1, keepdim=True)
            outputs += [logits, loc * loc.new_tensor(VARIANCES)[:, None, None]]
        return tuple(outputs)

    def folded(self) -> nn.Module:
        """Return an equivalent head with variances and class differences in the weights."""
        return FoldedS3FDHead(self)


class FoldedS3FDHead(nn.Module):
    """S3FDHead for deployment: convolutions compute face - background, which is linear.

    Max-out then is the smallest of three such logits if three background outputs compete, or the
    largest of three if three face outputs do.
    """

    def __init__(self, head: S3FDHead) -> None:
        super().__init__()
        self.loc_tower, self.conf_tower = head.loc_tower, head.conf_tower
        self.signs = tuple(-1.0 if background > 1 else 1.0 for background, _ in head.counts)
        pairs = zip(head.conf, head.counts, strict=True)
        self.conf = nn.ModuleList(_difference(conf, background) for conf, (background, _) in pairs)
        self.loc = nn.ModuleList(
            _mixed(loc, torch.diag(torch.tensor(VARIANCES))) for loc in head.loc
        )

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs: list[Tensor] = []
        for x, conf, loc, sign in zip(maps, self.conf, self.loc, self.signs, strict=True):
            logits = conf(self.conf_tower(x))
            if logits.shape[1] > 1:
                a, b, c = logits.split(1, 1)
                logits = (
                    torch.minimum(torch.minimum(a, b), c)
                    if sign < 0
                    else torch.maximum(torch.maximum(a, b), c)
                )
            outputs += [logits, loc(self.loc_tower(x))]
        return tuple(outputs)


def _tower(spec: S3FDHeadSpec) -> nn.Sequential:
    """``stack`` 3x3 convolutions (or depthwise 3x3, then 1x1) with biases, without normalisation.

    Each ends in one ReLU.
    """
    layers: list[nn.Module] = []
    for _ in range(spec.stack):
        if spec.depthwise:
            layers.append(
                ConvNorm(
                    spec.channels, spec.channels, 3, groups=spec.channels, bias=True, relu=False
                )
            )
        layers.append(ConvNorm(spec.channels, spec.channels, 1 if spec.depthwise else 3, bias=True))
    tower = nn.Sequential(*layers)
    for conv in (m for m in tower.modules() if isinstance(m, nn.Conv2d)):
        # Keeps the scale of activations, which no normalisation does here.
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return tower


def _difference(layer: nn.Module, background: int) -> ConvNorm:
    """Every face output minus every background output (one of the two counts is 1)."""
    assert isinstance(layer, ConvNorm)
    outputs = layer.conv.out_channels
    rows = [(b, f) for b in range(background) for f in range(background, outputs)]
    mix = torch.zeros(len(rows), outputs)
    for row, (b, f) in enumerate(rows):
        mix[row, f], mix[row, b] = 1.0, -1.0
    return _mixed(layer, mix)


def _mixed(layer: nn.Module, mix: Tensor) -> ConvNorm:
    """A convolution equal to ``mix @ layer(x)`` over channels; ``mix``: [new outputs, outputs]."""
    assert isinstance(layer, ConvNorm) and layer.conv.bias is not None
    old = layer.conv
    new = conv_bias(old.in_channels, len(mix), old.kernel_size[0])
    assert new.conv.bias is not None and old.bias is not None
    weight = torch.einsum("no,oikl->nikl", mix.double(), old.weight.detach().double())
    new.conv.weight = nn.Parameter(weight.float())
    new.conv.bias = nn.Parameter((mix.double() @ old.bias.detach().double()).float())
    return new


def _outputs(maxout: str, level: int) -> tuple[int, int]:
    """(background, face) outputs of a level; 0 is the finest."""
    if level == 0:
        return (COMPETING if maxout else 1), 1
    return 1, (COMPETING if maxout == "in-out" else 1)


def _check(spec: S3FDHeadSpec, in_channels: int) -> None:
    where = f"head {spec.kind}"
    require_output_kernel(where, spec.kernel)
    require_sizes(where, 0, stack=spec.stack)
    if spec.maxout not in MAXOUTS:
        raise ModelError(f"{where}: maxout is {spec.maxout!r}, accepted: out, in-out or nothing")
    if len(spec.prior) != 2 or min(spec.prior) <= 0:
        raise ModelError(f"{where}: prior is {spec.prior!r}, accepted: width and height in strides")
    if spec.channels != in_channels:
        raise ModelError(
            f"{where}: channels is {spec.channels}, accepted: the neck's {in_channels}"
        )
