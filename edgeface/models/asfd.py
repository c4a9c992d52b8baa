"""Neck of ASFD (Zhang et al., arXiv 2003.11228): AutoFEM, feature enhancement found by a search.

The paper gives no equations and no weights. docs/asfd.md lists what is published, what comes from
the authors' released code, and what is our interpretation.

    c2 ... c7   --1x1-->  f1 ... f6  -->  AutoFEM-FPN  -->  AutoFEM-CPM  -->  p1 ... p6
                                          \\________ repeated ________/

AutoFEM-FPN fuses each level with its neighbours, finest level first (``*`` multiplies value by
value):

    from above     t6 = f6      ti = op(up(t(i+1)) * fi)
    from below     d1 = f1      di = op(pool(d(i-1)) * fi)
    same level                  si = op(fi)
    output         oi = 1x1(softmax(w) . (ti, di, si)), o1 without d1, o6 without t6

AutoFEM-CPM is one context cell for each level: o + 1x1(concatenated leaves of the cell), then ReLU.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeface.architecture.genotype import LEVELS, OPERATIONS, Genotype, Node, leaves
from edgeface.architecture.specs import AutoFEMSpec
from edgeface.errors import ModelError
from edgeface.models.blocks import ConvNorm, Pyramid, Residual, conv_bias, conv_bn, require_sizes

INITIAL_MIX = 1e-3
"""Standard deviation of a mixing weight before softmax, in the authors' code."""


class AutoFEM(Pyramid):
    """Six maps of any widths -> six maps of ``spec.channels`` channels and the same sizes."""

    def __init__(self, in_channels: tuple[int, ...], spec: AutoFEMSpec) -> None:
        super().__init__()
        require_sizes("neck autofem", repeats=spec.repeats)
        if spec.genotype is None or len(in_channels) != LEVELS:
            raise ModelError(
                f"neck autofem: genotype is {'missing' if spec.genotype is None else 'there'}, maps"
                f" are {len(in_channels)}, accepted: a genotype and {LEVELS} maps"
            )
        self.out_channels = spec.channels
        self.lateral = nn.ModuleList(conv_bn(width, spec.channels, 1) for width in in_channels)
        self.enhance = nn.Sequential(
            *(
                layer
                for _ in range(spec.repeats)
                for layer in modules_of(spec.genotype, spec.channels)
            )
        )

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.shots(features)[1]

    def shots(self, features: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Maps of the first shot (1x1 laterals, before AutoFEM) and of the second (after it)."""
        first = tuple(lateral(f) for lateral, f in zip(self.lateral, features, strict=True))
        second: tuple[Tensor, ...] = self.enhance(first)
        return first, second

    def folded(self) -> AutoFEM:
        """Make the mixing shares constants, in place; fold the convolutions before this."""
        for layer in self.enhance:
            if isinstance(layer, Fusion):
                layer.fold()
        return self


def modules_of(genotype: Genotype, channels: int) -> list[nn.Module]:
    """The modules AutoFEM-FPN and AutoFEM-CPM of a genotype."""
    top_down, bottom_up, same = (
        [operation(name, channels) for name in names]
        for names in (genotype.top_down, genotype.bottom_up, genotype.same)
    )
    return [
        Fusion(top_down, bottom_up, same, channels),
        ContextCell(context_cell(cell, channels) for cell in genotype.context),
    ]


def operation(name: str, channels: int) -> nn.Sequential:
    """ReLU, depthwise convolution (not for conv_1x1), 1x1, batch norm: keeps [N, C, H, W]."""
    kernel, dilation = OPERATIONS[name]
    layers: list[nn.Module] = [nn.ReLU()]
    if kernel > 1:
        layers.append(
            ConvNorm(channels, channels, kernel, groups=channels, dilation=dilation, relu=False)
        )
    return nn.Sequential(*layers, conv_bn(channels, channels, 1, relu=False))


class Fusion(nn.Module):
    """AutoFEM-FPN: six maps of one width -> six maps of the same shapes.

    top_down, bottom_up, same: the operations, finest level first, as :class:`Genotype` lists their
    names.
    """

    def __init__(
        self,
        top_down: Iterable[nn.Module],
        bottom_up: Iterable[nn.Module],
        same: Iterable[nn.Module],
        channels: int,
    ) -> None:
        super().__init__()
        self.top_down, self.bottom_up, self.same = map(nn.ModuleList, (top_down, bottom_up, same))
        self.mixes = nn.ParameterList(
            INITIAL_MIX * torch.randn(2 if level in (0, LEVELS - 1) else 3)
            for level in range(LEVELS)
        )
        """logits of the shares of the maps from above and below (if any) and of the same level"""
        self.output = nn.ModuleList(conv_bias(channels, channels, 1) for _ in range(LEVELS))
        self.shares: tuple[tuple[float | None, ...], ...] = ()
        """softmax of ``mixes``, once folded; None where the share is part of a convolution"""

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        above, below = [maps[-1]], [maps[0]]
        for op, f in zip(reversed(self.top_down), reversed(maps[:-1]), strict=True):
            above.append(op(_enlarged(above[-1], f) * f))
        for op, f in zip(self.bottom_up, maps[1:], strict=True):
            below.append(op(F.max_pool2d(below[-1], 3, 2, 1) * f))
        outputs = []
        for level, (op, f, convolve) in enumerate(zip(self.same, maps, self.output, strict=True)):
            parts = (
                [above[LEVELS - 1 - level]] * (level < LEVELS - 1)
                + [below[level]] * (level > 0)
                + [op(f)]
            )
            shares = self.shares[level] if self.shares else self.mixes[level].softmax(0)
            mixed = zip(parts, shares, strict=True)
            outputs.append(convolve(_sum(f if share is None else f * share for f, share in mixed)))
        return tuple(outputs)

    def fold(self) -> None:
        """Make the mixing shares constants, and fold them into convolutions where possible.

        That is where nothing else reads the output of the convolution. Exporters would do the same
        by themselves; done here, it comes before weights are rounded to float16.
        """
        shares: list[list[float | None]] = [mix.softmax(0).tolist() for mix in self.mixes]
        ends = [(self.top_down[0], shares[0], 0), (self.bottom_up[-1], shares[-1], 0)]
        for op, row, part in [*zip(self.same, shares, [-1] * LEVELS, strict=True), *ends]:
            layer, share = list(op.children())[-1], row[part]
            assert isinstance(layer, ConvNorm) and layer.conv.bias is not None and share is not None
            with torch.no_grad():
                layer.conv.weight.mul_(share)
                layer.conv.bias.mul_(share)
            row[part] = None
        self.shares = tuple(map(tuple, shares))
        self.mixes = nn.ParameterList()


def _sum(maps: Iterable[Tensor]) -> Tensor:
    # sum() would start with an addition to 0, which would end up in the graph.
    return reduce(torch.add, maps)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """``x`` resized to the size of ``like``: bilinear, with aligned corners."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


class ContextCell(nn.Module):
    """AutoFEM-CPM: a separate context cell for each map."""

    def __init__(self, cells: Iterable[nn.Module]) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(cell(x) for cell, x in zip(self.cells, maps, strict=True))


def context_cell(cell: tuple[Node, ...], channels: int) -> Residual:
    """ReLU(x + 1x1(leaves of the cell)): keeps [N, C, H, W]."""
    graph = Leaves(cell, channels)
    project = conv_bn(len(graph.leaves) * channels, channels, 1, relu=False)
    return Residual(nn.Sequential(graph, project), nn.Identity())


class Leaves(nn.Module):
    """Runs the nodes of a context cell: [N, C, H, W] -> its leaves, [N, leaves * C, H, W]."""

    def __init__(self, cell: tuple[Node, ...], channels: int) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(operation(node.op, channels) for node in cell)
        self.inputs = tuple(node.inputs for node in cell)
        self.leaves = leaves(cell)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for node, inputs in zip(self.nodes, self.inputs, strict=True):
            maps.append(node(_sum(maps[i] for i in inputs)))
        return torch.cat([maps[i] for i in self.leaves], 1) if len(self.leaves) > 1 else maps[-1]
