"""Group normalisation without a reshape.

The published heads normalise over groups of channels. Exporters write that as a reshape to [N, G,
C/G, H, W] and back, which costs two TRANSPOSE per layer in a channels-last file, and shape
arithmetic in a file that accepts any size.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgeface.models.detector import FaceNet


class ChannelSums(nn.Module):
    """Group normalisation with operators that keep the order of the axes.

    mean over a group = (1x1 convolution with ones inside each group)(spatial mean per channel) /
    channels per group. The division stays outside the convolution, so that its weights are exact in
    float16 too.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        size = norm.num_channels // norm.num_groups
        ones = torch.kron(torch.eye(norm.num_groups), torch.ones(size, size))
        self.sums = nn.Conv2d(norm.num_channels, norm.num_channels, 1, bias=False)
        self.sums.weight = nn.Parameter(ones[:, :, None, None])
        self.share, self.eps = 1.0 / size, norm.eps
        self.weight = nn.Parameter(norm.weight.detach()[None, :, None, None])
        self.bias = nn.Parameter(norm.bias.detach()[None, :, None, None])

    def group_mean(self, x: Tensor) -> Tensor:
        mean: Tensor = self.sums(x.mean((2, 3), keepdim=True)) * self.share
        return mean

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.group_mean(x)
        return x * (torch.rsqrt(self.group_mean(x * x) + self.eps) * self.weight) + self.bias


def without_group_norm(network: FaceNet) -> FaceNet:
    """Return a copy of ``network`` whose GroupNorm layers are ChannelSums."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, ChannelSums(child))
    return network
