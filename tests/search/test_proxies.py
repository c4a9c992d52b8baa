"""Training-free scores: checked against torch, against figures worked out by hand, and against each
other."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from networks import with_part

from edgeface.architecture import (
    Architecture,
    PlainHeadSpec,
    PlainNetSpec,
    PyramidSpec,
    get_architecture,
)
from edgeface.architecture.layers import layers_of, macs_of, params_of
from edgeface.errors import ModelError, OptionError
from edgeface.search.scores import ddsar
from edgeface.search.scores.ddsar import WEIGHTS
from edgeface.search.scores.entropy import entropy
from edgeface.search.scores.macs import depth, stage_macs, unbypassed
from edgeface.search.scores.outputs import outputs
from edgeface.search.scores.registry import PROXIES, WITH_ALPHA, noise, proxy
from edgeface.search.scores.zen import zen
from edgeface.search.space import SPACES

SMALL = Architecture(
    "small",
    PlainNetSpec(
        "SuperConvK3BNRELU(3,8,2,1)SuperDWK5BNRELU(8,16,2,1)SuperResK3K3(16,24,2,8,1)"
        "SuperResK1K3K1(24,32,2,8,1)SuperResIDWE2K3(32,48,2,16,1)"
    ),
    PyramidSpec("fpn", 16),
    PlainHeadSpec(24, 1, depthwise=True),
)
PATH = (
    ((3, 8, 3, 2, 1),),
    ((8, 8, 5, 2, 8), (8, 16, 1, 1, 1)),
    ((16, 8, 3, 2, 1), (8, 24, 3, 1, 1)),
    (
        (24, 8, 1, 1, 1),
        (8, 8, 3, 2, 1),
        (8, 32, 1, 1, 1),
        (32, 8, 1, 1, 1),
        (8, 8, 3, 1, 1),
        (8, 32, 1, 1, 1),
    ),
    (
        (32, 32, 1, 1, 1),
        (32, 32, 3, 2, 32),
        (32, 16, 1, 1, 1),
        (16, 96, 1, 1, 1),
        (96, 96, 3, 1, 96),
        (96, 48, 1, 1, 1),
    ),
)
"""convolutions of SMALL in the stem and c2 to c5, without shortcuts: input channels, output
channels, kernel, stride, groups"""
STRAIGHT = dataclasses.replace(
    SMALL,
    backbone=PlainNetSpec(
        "SuperConvK6BNRELU(3,16,4,1)" + SMALL.structure.partition(",1)SuperDWK5BNRELU(8,16,2,1)")[2]
    ),
)
"""like SMALL from c3 on, with a stem of stride 4 in place of stem and c2"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: several wait for each other if other programs run too."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def executed(architecture: Architecture) -> dict[str, list[tuple[int, ...]]]:
    """Convolutions of the module in order of execution, without shortcuts, as in :data:`PATH`, by
    stage."""
    import torch

    from edgeface.models.detector import build_backbone

    network = build_backbone(architecture.backbone).eval()
    found: dict[str, list[tuple[int, ...]]] = {}
    names = {module: name for name, module in network.named_modules()}

    def hook(module: Any, inputs: Any, output: Any) -> None:
        stage = re.match(r"stem|stages\.\d", names[module])
        assert stage
        found.setdefault(stage[0], []).append(
            (
                module.in_channels,
                module.out_channels,
                module.kernel_size[0],
                module.stride[0],
                module.groups,
            )
        )

    for module, name in names.items():
        if isinstance(module, torch.nn.Conv2d) and "shortcut" not in name:
            module.register_forward_hook(hook)
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 64))
    return found


def test_the_path_by_hand_is_the_module() -> None:
    assert [tuple(stage) for stage in executed(SMALL).values()] == list(PATH)


@pytest.mark.parametrize("name", ["outputs", "detector", "depth", "plain"])
def test_landmark_outputs_do_not_count_as_layers_with_relu(name: str) -> None:
    pointed = with_part(SMALL, "head", landmarks=5)
    assert proxy(name, pointed) == proxy(name, SMALL)
    assert macs_of(pointed, 64, 64) > macs_of(SMALL, 64, 64)


def test_entropy_by_hand() -> None:
    """Each convolution adds ln(values read) / 2: first ln(3 * 3^2) / 2, depthwise 5x5 ln 25 / 2."""
    read = [27, 25, 8, 144, 72, 24, 72, 8, 32, 72, 8, 32, 9, 32, 16, 9, 96]
    depths = [0.5 * sum(math.log(n) for n in read[:end]) for end in (5, 11, 17)]
    c3, c4, c5 = (
        math.log(width) + total for width, total in zip((24, 32, 48), depths, strict=True)
    )
    assert entropy(SMALL) == pytest.approx(c3 + c4 + 6 * c5, rel=1e-12)
    assert proxy("entropy", SMALL) == entropy(SMALL)


@pytest.mark.parametrize("name", SPACES)
def test_depth_and_entropy_follow_what_torch_runs(name: str) -> None:
    for seed in range(2):
        architecture = SPACES[name].sample(seed)
        stages = list(executed(architecture).values())
        tower = architecture.head.stack * (2 if architecture.head.depthwise else 1)
        assert depth(architecture) == sum(map(len, stages)) + tower + 2
        total, ends = 0.0, []
        for stage in stages:
            total += sum(
                0.5 * math.log(c_in * kernel**2 // groups) for c_in, _, kernel, _, groups in stage
            )
            ends.append(math.log(stage[-1][1]) + total)
        assert entropy(architecture) == pytest.approx(ends[-3] + ends[-2] + 6 * ends[-1])


def zen_of_modules(path: list[tuple[int, ...]], seed: int = 0) -> float:
    """Zen-score with torch's own layers, in training mode."""
    import torch

    generator, scores = torch.Generator().manual_seed(seed), []
    for _ in range(4):
        images, noise = torch.randn(2, 16, 3, 64, 64, generator=generator)
        layers: list[torch.nn.Module] = []
        variances: list[float] = []
        for c_in, c_out, kernel, stride, groups in path:
            border = 1 if stride == 4 else (kernel - 1) // 2
            conv = torch.nn.Conv2d(c_in, c_out, kernel, stride, border, groups=groups, bias=False)
            with torch.no_grad():
                conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator))
            layers += [conv, torch.nn.BatchNorm2d(c_out), torch.nn.ReLU()]
        network = torch.nn.Sequential(*layers).train()
        with torch.no_grad():
            maps = images
            for layer in network:
                maps = layer(maps)
                if isinstance(layer, torch.nn.Conv2d):
                    variances += [
                        float(maps.transpose(0, 1).flatten(1).var(1, unbiased=False).mean())
                    ]
            change = (maps - network(images + 0.01 * noise)).abs().sum((1, 2, 3)).mean()
        scores.append(math.log(float(change)) + sum(math.log(math.sqrt(v)) for v in variances))
    return sum(scores) / 4


def test_zen_against_torch_modules() -> None:
    import torch

    stem: tuple[tuple[int, ...], ...] = ((3, 16, 6, 4, 1),)
    for architecture, path in ((SMALL, PATH), (STRAIGHT, (stem, *PATH[2:]))):
        expected = zen_of_modules([conv for stage in path for conv in stage])
        assert zen(architecture) == pytest.approx(expected, rel=1e-4)
    state = torch.random.get_rng_state()
    first = zen(SMALL)
    zen.cache_clear()
    assert first == proxy("zen", SMALL) != zen(SMALL, seed=1)
    assert torch.equal(
        state, torch.random.get_rng_state()
    )  # the global random state is left unchanged


def test_zen_grows_with_width() -> None:
    """The published motive: wider networks express more."""
    structures = [SMALL.structure.replace("48,2,16", f"{width},2,16") for width in (32, 48, 96)]
    widths = [
        dataclasses.replace(SMALL, backbone=PlainNetSpec(structure)) for structure in structures
    ]
    assert sorted(widths, key=zen) == widths


def test_ddsar_and_corrected_are_those_of_the_backbone() -> None:
    architecture = get_architecture("damofd-0.5g")
    found = ddsar.score(architecture.backbone, 0.005)
    assert proxy("ddsar", architecture, 0.005) == found.ddsar
    assert (
        proxy("corrected", architecture, 0.005)
        == proxy("mended", architecture, 0.005)
        == found.corrected
    )
    assert proxy("detector", SMALL, 0.05) == ddsar.detector_score(SMALL, 0.05)
    assert proxy("detector", SMALL) == ddsar.detector_score(SMALL, ddsar.ALPHA, ddsar.WEIGHTS)


def test_levels_leave_c2_out() -> None:
    """Neither stem nor c2 matters; with the term of c2 added, the score is the detector score."""
    assert proxy("levels", SMALL, 0.05) == pytest.approx(proxy("levels", STRAIGHT, 0.05))
    c2 = ddsar.expressivity([ddsar.Conv(8, 112, 5), ddsar.Conv(8, 56, 1)]) + 0.05 * 6
    whole = (proxy("levels", SMALL, 0.05) * sum(WEIGHTS[2:]) + c2 * WEIGHTS[1]) / sum(WEIGHTS[1:])
    assert whole == pytest.approx(proxy("detector", SMALL, 0.05))


def test_outputs_by_hand() -> None:
    """Convolutions count by their outputs: ln(side^2 3) + sum of side^2 3 ln(channels / 3)."""
    stages, side = [], 112
    for stage, level in zip(PATH[1:], (0, 28, 14, 7), strict=True):
        written = []
        for _, out, kernel, stride, _ in stage:
            side //= stride
            written.append((out, side, kernel))
        if level:
            written += [
                (16, level, 1),
                (16, level, 3),
                (24, level, 1),
            ]  # lateral, depthwise, pointwise
        stages.append(written)
    expected = 0.0
    for weight, written in zip(WEIGHTS[1:], stages, strict=True):
        total = math.log(written[0][1] ** 2 * 3) + sum(
            3 * h * h * math.log(c / 3) for c, h, _ in written
        )
        expected += weight * (math.log(total) + 0.1 * sum(k for _, _, k in written))
    assert outputs(SMALL, 0.1) == pytest.approx(expected / sum(WEIGHTS[1:]), rel=1e-12)


def test_outputs_do_not_punish_a_stem_of_stride_4() -> None:
    """Behind such a stem, c2 reads 3 channels: in the detector score its term drops from about 12
    to nearly 0."""
    losses = [
        (proxy(name, SMALL, 0.0) - proxy(name, STRAIGHT, 0.0)) * sum(WEIGHTS[1:]) / WEIGHTS[1]
        for name in ("detector", "outputs")
    ]
    assert losses[0] > 8 and losses[1] == pytest.approx(math.log(2), abs=0.35)


def test_macs_of_stages() -> None:
    """The stem counts to c2, neck and head to their level, so the sum is that of the network."""
    for architecture in (SMALL, STRAIGHT, get_architecture("edgeface-n"), SPACES["edge"].sample(3)):
        assert sum(stage_macs(architecture)) == macs_of(architecture, 640, 480)
    cells = 640 * 480
    assert stage_macs(SMALL)[0] == cells // 4 * 27 * 8 + cells // 16 * (25 * 8 + 8 * 16)
    assert stage_macs(STRAIGHT)[0] == cells // 16 * 36 * 3 * 16
    assert stage_macs(SMALL)[1:] == stage_macs(STRAIGHT)[1:]
    c3 = (
        9 * 16 * 8 + 9 * 8 * 24 + 16 * 24 + 24 * 16 + 9 * 16 + 16 * 24 + 24 * 5
    )  # with lateral, tower and outputs
    assert stage_macs(SMALL)[1] == cells // 64 * c3
    expected = sum(
        w * math.log(macs) for w, macs in zip(WEIGHTS[1:], stage_macs(SMALL), strict=True)
    )
    assert proxy("stage-macs", SMALL) == pytest.approx(expected / sum(WEIGHTS[1:]))
    assert proxy("stage-macs", SMALL, weights=(0, 0, 0, 0, 1)) == pytest.approx(
        math.log(stage_macs(SMALL)[3])
    )


def test_depth_by_hand() -> None:
    """SMALL: 17 in the backbone, the lateral one, depthwise and pointwise of the tower, output."""
    assert depth(SMALL) == proxy("depth", SMALL) == 17 + 1 + 2 + 1
    assert depth(with_part(SMALL, "head", stack=3)) == 17 + 1 + 3 * 2 + 1
    assert (
        depth(get_architecture("edgeface-n")) == 1 + sum(1 + 2 * n for n in (1, 1, 2)) + 1 + 1 + 1
    )


def test_baselines() -> None:
    assert (
        proxy("params", SMALL)
        == params_of(SMALL)
        == sum(layer.params for layer in layers_of(SMALL, 640, 480))
    )
    assert proxy("macs", SMALL) == macs_of(SMALL, 640, 480)


def test_random_knows_the_content_only() -> None:
    found = [noise(SPACES["edge"].sample(seed)) for seed in range(40)]
    assert len(set(found)) == 40 and 0 <= min(found) < 0.2 and 0.8 < max(found) < 1
    assert noise(SMALL) == noise(dataclasses.replace(SMALL, name="other")) != noise(SMALL, seed=1)


@pytest.mark.parametrize("name", WITH_ALPHA)
def test_alpha_weighs_kernels(name: str) -> None:
    """The score is linear in alpha, as SAR is."""
    at = [proxy(name, SMALL, alpha) for alpha in (0.0, 0.1, 0.2)]
    assert at[1] - at[0] == pytest.approx(at[2] - at[1]) and at[1] > at[0]


@pytest.mark.parametrize("name", sorted(set(PROXIES) - set(WITH_ALPHA) - {"zen"}))
def test_alpha_does_not_matter_to_the_others(name: str) -> None:
    assert proxy(name, SMALL, 0.0) == proxy(name, SMALL, 0.5)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        OptionError, match=r"unknown score 'naswot' \(known: ddsar, corrected, detector"
    ):
        proxy("naswot", SMALL)


@pytest.mark.parametrize(
    "name", ["detector", "levels", "outputs", "stage-macs", "depth", "params", "entropy"]
)
def test_networks_without_the_score_are_one_line(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        proxy(name, get_architecture("scrfd-0.5g"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("detector", (1, 1)),
        ("outputs", (1, 0, 0, 0, 0)),
        ("stage-macs", (0, math.nan, 1, 1, 1)),
        ("levels", (0, 1, 0, 0, 0)),
    ],
)
def test_bad_weights(name: str, weights: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match="give 5 numbers"):
        proxy(name, SMALL, weights=weights)


def test_unbypassed_by_hand() -> None:
    """SMALL: stem 1, separable 2, then residuals only; lateral, a depthwise tower of 2, output.
    Shipped: stem, three strided convolutions, lateral, tower, output."""
    assert unbypassed(SMALL) == 1 + 2 + 1 + 2 + 1
    assert unbypassed(get_architecture("edgeface-n")) == 1 + 3 + 1 + 1 + 1
    assert unbypassed(with_part(SMALL, "head", stack=3)) == 1 + 2 + 1 + 3 * 2 + 1
    assert proxy("plain", SMALL) == -7
    assert proxy("trainable", SMALL) == pytest.approx(proxy("stage-macs", SMALL) - 0.7)
