"""Supernet: an AutoFEM neck with every operation that a genotype may have, one active per place.

Each place has logits. The operation that runs is the arg-max of softmax(logits + noise), multiplied
by its one-hot weight of 1; the gradient goes through that weight as if it were soft (straight
through). This follows the authors' released code (asfd.md in docs/ lists what does not):

    noise = -scale * log(-log U), p = softmax(logits + noise)
    forward    weight = one_hot(argmax p)
    backward   d logits = p (1 - p) * d weight * (number of candidates)

A quarter of the channels goes through the operation, the others bypass it, and all are shuffled
(partial channels, Xu et al., ICLR 2020). A node of a context cell also chooses which earlier map it
reads (edge normalisation, same paper).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.genotype import LEVELS, OPERATIONS, Genotype, Node
from edgeface.architecture.specs import AutoFEMSpec, S3FDHeadSpec
from edgeface.errors import ModelError
from edgeface.models.asfd import AutoFEM, ContextCell, Fusion, operation
from edgeface.models.blocks import conv_bn
from edgeface.models.detector import FaceNet, build_detector
from edgeface.search.autofem.options import PARTIAL

FUSION_CANDIDATES = tuple(name for name in OPERATIONS if name != "sep_conv_7x7")
"""as in the authors' code"""
CONTEXT_CANDIDATES = tuple(OPERATIONS)
NODES = 6
"""nodes of a context cell (published: best of 4, 6 and 8)"""
INITIAL_LOGIT = 1e-3
"""standard deviation of the initial logits"""


class StraightThrough(torch.autograd.Function):
    """logits [n] -> one-hot of their arg-max [n]; backward p (1 - p) g n with p =
    softmax(logits)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        p = logits.softmax(0)
        ctx.save_for_backward(p)
        return nn.functional.one_hot(p.argmax(), len(p)).to(p.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        p: Tensor = ctx.saved_tensors[0]
        return p * (1 - p) * gradient * len(p)


class GumbelChoice(nn.Module):
    """Choice of one of ``count`` candidates. A call returns the index of the chosen one and its
    weight, which is 1."""

    noise: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(INITIAL_LOGIT * torch.randn(count))
        self.register_buffer("noise", torch.zeros(count), persistent=False)

    def forward(self) -> tuple[int, Tensor]:
        noisy = self.logits + self.noise
        weights: Tensor = StraightThrough.apply(noisy)  # type: ignore[no-untyped-call]
        index = int(weights.argmax())
        return index, weights[index]

    def perturb(self, scale: float, generator: torch.Generator) -> None:
        """Draw new Gumbel noise for the following passes."""
        uniform = torch.rand(len(self.logits), generator=generator).clamp(1e-20, 1 - 1e-7)
        self.noise = (-scale * (-uniform.log()).log()).to(self.logits.device)

    @property
    def best(self) -> int:
        """Index of the candidate with the largest logit."""
        return int(self.logits.argmax())


class AnyOperation(nn.Module):
    """[N, C, H, W] -> the same: one of ``names`` on a quarter of the channels."""

    def __init__(self, names: tuple[str, ...], channels: int) -> None:
        super().__init__()
        self.names, self.inner = names, channels // PARTIAL
        self.operations = nn.ModuleList(operation(name, self.inner) for name in names)
        self.choice = GumbelChoice(len(names))

    def forward(self, x: Tensor) -> Tensor:
        index, weight = self.choice()
        done = weight * self.operations[index](x[:, : self.inner])
        return nn.functional.channel_shuffle(torch.cat([done, x[:, self.inner :]], 1), PARTIAL)

    @property
    def best(self) -> str:
        """Name of the operation with the largest logit."""
        return self.names[self.choice.best]


class AnyCell(nn.Module):
    """A context cell whose nodes choose their input and their operation: [N, C, H, W] -> the same.

    Each leaf, a node that no other node reads, has its own 1x1 convolution; the sum of these equals
    one convolution over the concatenated leaves, whatever their number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sources = nn.ModuleList(GumbelChoice(number) for number in range(1, NODES + 1))
        self.edges = nn.ModuleList(
            nn.ModuleList(AnyOperation(CONTEXT_CANDIDATES, channels) for _ in range(number))
            for number in range(1, NODES + 1)
        )
        self.project = nn.ModuleList(
            conv_bn(channels, channels, 1, relu=False) for _ in range(NODES)
        )

    def forward(self, x: Tensor) -> Tensor:
        maps, read = [x], set()
        for source, edges in zip(self.sources, self.edges, strict=True):
            index, weight = source()
            assert isinstance(edges, nn.ModuleList)
            maps.append(weight * edges[index](maps[index]))
            read.add(index)
        for number, project in enumerate(self.project, 1):
            if number not in read:
                x = x + project(maps[number])
        return torch.relu(x)

    @property
    def best(self) -> tuple[Node, ...]:
        """Nodes of the cell, each with the input and operation of the largest logit."""
        nodes = []
        for source, edges in zip(self.sources, self.edges, strict=True):
            assert isinstance(source, GumbelChoice) and isinstance(edges, nn.ModuleList)
            edge = edges[source.best]
            assert isinstance(edge, AnyOperation)
            nodes.append(Node((source.best,), edge.best))
        return tuple(nodes)


def build_supernet(architecture: Architecture, channels: int, seed: int) -> FaceNet:
    """``architecture`` with one shot, neck and head of ``channels``, all operations in the neck.

    Raises ModelError for a network that has no AutoFEM.
    """
    neck, head = architecture.neck, architecture.head
    if not isinstance(neck, AutoFEMSpec) or not isinstance(head, S3FDHeadSpec):
        raise ModelError(
            f"{architecture.name} has neck {neck.kind}, accepted: a network of the ASFD "
            "family, such as asfd-d0"
        )
    narrowed = dataclasses.replace(
        architecture,
        neck=dataclasses.replace(neck, channels=channels, repeats=1),
        head=dataclasses.replace(head, channels=channels, dual=False),
    )
    net = build_detector(narrowed, seed)
    assert isinstance(net.neck, AutoFEM)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net.neck.enhance = nn.Sequential(
            Fusion(
                _places(LEVELS - 1, channels),
                _places(LEVELS - 1, channels),
                _places(LEVELS, channels),
                channels,
            ),
            ContextCell(AnyCell(channels) for _ in range(LEVELS)),
        )
    return net


def _places(count: int, channels: int) -> Iterator[AnyOperation]:
    return (AnyOperation(FUSION_CANDIDATES, channels) for _ in range(count))


def choices_of(net: nn.Module) -> list[GumbelChoice]:
    """Every choice in ``net``, in a fixed order."""
    return [module for module in net.modules() if isinstance(module, GumbelChoice)]


def genotype_of(net: FaceNet) -> Genotype:
    """Genotype of a supernet: in each place the candidate with the largest logit."""
    assert isinstance(net.neck, AutoFEM)
    fusion, context = net.neck.enhance
    assert isinstance(fusion, Fusion) and isinstance(context, ContextCell)
    top_down, bottom_up, same = (
        _best(places) for places in (fusion.top_down, fusion.bottom_up, fusion.same)
    )
    cells = [cell.best for cell in context.cells if isinstance(cell, AnyCell)]
    return Genotype(top_down, bottom_up, same, tuple(cells))


def _best(places: Iterable[nn.Module]) -> tuple[str, ...]:
    return tuple(place.best for place in places if isinstance(place, AnyOperation))
