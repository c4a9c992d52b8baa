"""The list of layers against what torch builds and runs."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest
from networks import with_part

from edgeface.architecture import Architecture, get_architecture
from edgeface.architecture.layers import Layer, layers_of, macs_of, params_of, parts_of
from edgeface.errors import ModelError
from edgeface.search.space import SPACES

torch = pytest.importorskip("torch", reason="torch is not installed")


def convolutions(
    architecture: Architecture, width: int, height: int
) -> tuple[list[tuple[Any, ...]], int]:
    """Convolutions that torch runs in the deployed network, and its number of parameters.

    Each is (kind, kernel, stride, in, out, output width, output height, whether it is a shortcut).
    """
    from edgeface.models import build
    from edgeface.models.detector import deployable

    network = deployable(build(architecture))
    found: list[tuple[Any, ...]] = []

    def hook(shortcut: bool, module: Any, inputs: Any, output: Any) -> None:
        kind = "depthwise" if module.groups > 1 else "conv"
        found.append(
            (
                kind,
                module.kernel_size[0],
                module.stride[0],
                module.in_channels,
                module.out_channels,
                output.shape[3],
                output.shape[2],
                shortcut,
            )
        )

    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(functools.partial(hook, ".shortcut" in name))
    with torch.no_grad():
        network(torch.zeros(1, 3, height, width))
    return found, sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_layers_are_those_that_torch_runs(name: str, seed: int) -> None:
    architecture = SPACES[name].sample(seed)
    expected, params = convolutions(architecture, 96, 64)
    ours = [tuple(layer) for layer in layers_of(architecture, 96, 64) if layer.kernel]
    assert sorted(ours) == sorted(expected)
    assert params_of(architecture) == params


@pytest.mark.parametrize("change", [{"landmarks": 5}, {"landmarks": 5, "anchors": 2, "kernel": 3}])
def test_layers_of_a_head_with_landmarks(change: dict[str, Any]) -> None:
    from edgeface.models.complexity import count

    architecture = with_part(get_architecture("edgeface-n"), "head", **change)
    expected, params = convolutions(architecture, 96, 64)
    ours = [tuple(layer) for layer in layers_of(architecture, 96, 64) if layer.kernel]
    assert sorted(ours) == sorted(expected)
    assert params_of(architecture) == params
    assert macs_of(architecture, 640, 480) == count(architecture, 640, 480).macs


def test_layers_of_the_shipped_network() -> None:
    from edgeface.models.complexity import count

    architecture = get_architecture("edgeface-n")
    expected, params = convolutions(architecture, 64, 64)
    assert sorted(
        tuple(layer) for layer in layers_of(architecture, 64, 64) if layer.kernel
    ) == sorted(expected)
    assert params_of(architecture) == params
    assert macs_of(architecture, 640, 480) == count(architecture, 640, 480).macs


@pytest.mark.parametrize("name", SPACES)
def test_macs_equal_the_traced_count(name: str) -> None:
    from edgeface.models.complexity import count

    draw, space = random.Random(5), SPACES[name]
    architecture = space.sample(11)
    for _ in range(20):
        architecture = space.mutate(architecture, draw)
        assert macs_of(architecture, 320, 256) == count(architecture, 320, 256).macs


def test_additions_and_resizes() -> None:
    """edgeface-n adds once per residual (1 + 1 + 2) and after each of the pyramid's two resizes."""
    kinds = [layer.kind for layer in layers_of(get_architecture("edgeface-n"), 64, 64)]
    assert (kinds.count("add"), kinds.count("resize")) == (6, 2)


def test_values_moved() -> None:
    conv = Layer("conv", 3, 2, 8, 16, 20, 10)
    assert (conv.cells, conv.values_read, conv.values_written) == (200, 40 * 20 * 8, 200 * 16)
    assert (conv.macs, conv.params) == (200 * 9 * 8 * 16, 9 * 8 * 16 + 16)
    assert Layer("add", 0, 1, 8, 8, 20, 10).values_read == 2 * 200 * 8
    assert Layer("resize", 0, 1, 8, 8, 20, 10).values_read == 50 * 8
    assert Layer("resize", 0, 1, 8, 8, 20, 10).params == 0


def test_parts_of_equal_blocks_are_kept() -> None:
    first, second = (parts_of(get_architecture("edgeface-n"), 64, 64) for _ in range(2))
    assert all(a is b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["scrfd-0.5g", "damofd-0.5g"])
def test_other_networks_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"layers are listed for backbones convnet and plainnet"):
        layers_of(get_architecture(name), 64, 64)


def test_size_is_a_multiple_of_32() -> None:
    with pytest.raises(ModelError, match="multiples of 32"):
        layers_of(get_architecture("edgeface-n"), 100, 64)


@pytest.mark.parametrize("change", [{"widths": ()}, {"depths": (1,)}, {"widths": (8, 8, 0, 8)}])
def test_malformed_networks_are_one_line(change: dict[str, Any]) -> None:
    broken = with_part(get_architecture("edgeface-n"), "backbone", **change)
    with pytest.raises(ModelError, match=r"takes 4 widths and 3 depths|at least 1"):
        layers_of(broken, 64, 64)
