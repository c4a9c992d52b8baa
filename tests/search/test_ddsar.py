"""DDSAR against the published scorer's figures, the theorem's own count, and the faces of WIDER
FACE."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeface.architecture import (
    ConvNetSpec,
    MobileNetSpec,
    PlainHeadSpec,
    PlainNetSpec,
    PyramidSpec,
    ResNetSpec,
    get_architecture,
)
from edgeface.architecture.structure import parse
from edgeface.errors import DataError, EdgefaceError, ModelError, OptionError
from edgeface.search.scores.ddsar import (
    WEIGHTS,
    Conv,
    block_score,
    detector_score,
    expressivity,
    score,
    stage_weights,
    stages_of,
)

PUBLISHED = {
    "damofd-0.5g": (
        (2.4784, 12.0010, 11.1707, 10.2811, 8.7816),
        (3, 10, 18, 36, 14),
        9.335759,
        13.177359,
    ),
    "damofd-2.5g": (
        (11.2679, 12.3164, 10.9798, 9.7826, 9.0589),
        (6, 24, 24, 50, 56),
        11.132108,
        18.060708,
    ),
    "damofd-10g": (
        (11.6096, 13.7628, 12.3698, 10.6872, 7.8310),
        (6, 50, 70, 40, 14),
        12.041123,
        22.037123,
    ),
    "damofd-34g": (
        (11.6096, 13.9859, 12.7273, 11.1485, 9.3801),
        (6, 50, 60, 40, 54),
        12.436183,
        22.799683,
    ),
}
"""SES and FSS of each stage, DDSAR at alpha .005 and .25, 224 px"""
SCRFD = {
    "scrfd-0.5g": ((11.744, 11.756, 11.008, 9.544, 9.170), (7, 8, 12, 8, 24)),
    "scrfd-2.5g": ((11.556, 11.673, 11.268, 9.594, 8.034), (9, 18, 30, 18, 12)),
    "scrfd-10g": ((12.032, 12.015, 11.329, 9.541, 8.549), (9, 18, 24, 12, 18)),
    "scrfd-34g": ((12.032, 14.294, 12.980, 10.281, 9.916), (9, 85, 80, 10, 40)),
}
MARGINS = {"0.5g": (0.25, 2.15), "2.5g": (0.30, 3.51), "10g": (1.08, 8.83), "34g": (-0.055, -2.45)}
"""DamoFD minus SCRFD without the stem, at alpha 0 and .25"""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_scores(name: str) -> None:
    ses, fss, small, large = PUBLISHED[name]
    backbone = get_architecture(name).backbone
    assert score(backbone, 0.005).ddsar == pytest.approx(small, abs=1e-6)
    found = score(backbone, 0.25)
    assert found.ddsar == pytest.approx(large, abs=1e-6)
    assert found.fss == fss and found.ses == pytest.approx(ses, abs=5e-5)


def test_published_scores_of_single_blocks() -> None:
    """Each stage of DamoFD-0.5G is one block; the first reads 224 px and each halves the side."""
    ses, fss, *_ = PUBLISHED["damofd-0.5g"]
    for i, block in enumerate(parse(get_architecture("damofd-0.5g").structure)):
        found = block_score(block, 224 >> i)
        assert found[0] == pytest.approx(ses[i], abs=5e-5) and found[1] == fss[i]


@pytest.mark.parametrize("name", SCRFD)
def test_scrfd_under_the_same_formula(name: str) -> None:
    """The reference values are known to three digits."""
    ses, fss = SCRFD[name]
    found = score(get_architecture(name).backbone)
    assert found.fss == fss and found.ses == pytest.approx(ses, abs=1e-3)


@pytest.mark.parametrize("regime", MARGINS)
def test_families_compared_without_the_stem(regime: str) -> None:
    """The known margins used literal widths. True widths add to DamoFD-0.5G alone: the other
    networks have no inverted blocks."""
    for alpha, margin in zip((0.0, 0.25), MARGINS[regime], strict=True):
        damofd, scrfd = (
            score(get_architecture(f"{family}-{regime}").backbone, alpha).corrected
            for family in ("damofd", "scrfd")
        )
        added = 0.08 if regime == "0.5g" else 0.0
        assert damofd - scrfd == pytest.approx(
            margin + added, abs=0.011 if regime != "0.5g" else 0.02
        )


def test_true_width_of_the_published_net() -> None:
    """Scoring DamoFD-0.5G with true widths is known to change DDSAR by +0.064."""
    backbone = get_architecture("damofd-0.5g").backbone
    true, literal = (
        sum(
            w * expressivity(stage)
            for w, stage in zip(WEIGHTS, stages_of(backbone, 224, literal=how), strict=True)
        )
        for how in (False, True)
    )
    assert true - literal == pytest.approx(0.064, abs=5e-4)


def test_expressivity_by_hand() -> None:
    """ln( ln(8^2 3) + 8^2 3 ln(6/3) + 4^2 3 ln(12/3) )"""
    expected = math.log(math.log(192) + 192 * math.log(2) + 48 * math.log(4))
    assert expressivity([Conv(6, 8, 3), Conv(12, 4, 3)]) == pytest.approx(expected, rel=1e-12)


def test_the_convolutions_are_those_of_the_module() -> None:
    """Input channels, input side and kernel of all convolutions of DamoFD-0.5G except shortcuts
    match torch."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from edgeface.models.detector import build_backbone

    backbone = get_architecture("damofd-0.5g").backbone
    network = build_backbone(backbone).eval()
    found = []
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d) and "shortcut" not in name:
            module.register_forward_hook(
                lambda m, i, o: found.append((i[0].shape[1], i[0].shape[2], m.kernel_size[0]))
            )
    with torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    ours = [(c.channels, c.side, c.kernel) for stage in stages_of(backbone, 224) for c in stage]
    assert sorted(ours) == sorted(found)


def test_stage_weights_of_wider(shared: Path) -> None:
    """All 3,226 official validation photos give the published weights within .03, as the training
    photos do."""
    if not (shared / "wider" / "eval_tools").is_dir():
        pytest.skip("the official WIDER FACE ground truth is not there")
    from edgeface.evaluation import load_ground_truth

    boxes = np.concatenate(
        [faces.boxes for faces in load_ground_truth(shared / "wider").images.values()]
    )
    assert len(boxes) > 39_000
    sides = np.sqrt(np.maximum(0, boxes[:, 2]) * np.maximum(0, boxes[:, 3]))  # x, y, width, height
    assert stage_weights(sides.tolist()) == pytest.approx(WEIGHTS, abs=0.03)


def test_stage_weights_by_hand() -> None:
    assert stage_weights([8, 9, 16, 30, 64, 65, 1000, 3]) == (0.25, 0.125, 0.25, 0.0, 0.375)
    with pytest.raises(DataError, match="no faces"):
        stage_weights([])


@pytest.mark.parametrize(
    "weights", [(1, 1), (0.2, 0.2, 0.2, 0.2, -0.2), (1, 0, 0, 0, 0), (math.nan, 1, 1, 1, 1)]
)
def test_bad_weights(weights: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match="give 5 numbers of at least 0"):
        score(get_architecture("damofd-0.5g").backbone, weights=weights)


def test_backbones_without_a_score() -> None:
    with pytest.raises(ModelError, match="not for extd"):
        score(get_architecture("extd-fpn-32-relu").backbone)
    short = PlainNetSpec("SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,8,2,8,1)")
    with pytest.raises(ModelError, match="this one has 2"):
        score(short)
    thin = "SuperConvK3BNRELU(3,1,2,1)" + "".join(
        f"SuperResK3K3({i},{o},2,1,1)" for i, o in ((1, 1),) * 4
    )
    with pytest.raises(ModelError, match="widths are below 3"):
        score(PlainNetSpec(thin))


def test_a_stem_of_stride_4_is_c2_by_hand() -> None:
    """edgeface-n: 6x6 on the image, then at 56, 28 and 14 px a strided 3x3 and the residuals behind
    it."""
    backbone = get_architecture("edgeface-n").backbone
    assert isinstance(backbone, ConvNetSpec)
    stem, c2, c3, c4, c5 = stages_of(backbone, 224)
    assert (stem, c2) == ([], [Conv(3, 224, 6)])
    for stage, before, out, side, depth in zip(
        (c3, c4, c5),
        backbone.widths,
        backbone.widths[1:],
        (56, 28, 14),
        backbone.depths,
        strict=False,
    ):
        assert stage == [Conv(before, side, 3)] + 2 * depth * [Conv(out, side // 2, 3)]
    found = score(backbone, alpha=0.1)
    assert found.ses[:2] == pytest.approx((0.0, math.log(math.log(224**2 * 3))))
    assert found.ddsar == pytest.approx(
        sum(w * (s + 0.1 * f) for w, s, f in zip(WEIGHTS, found.ses, found.fss, strict=True))
    )
    same = (
        "SuperConvK6BNRELU(3,16,4,1)SuperDWK5BNRELU(16,24,2,2)SuperConvK3BNRELU(24,32,2,1)"
        "SuperConvK3BNRELU(32,32,2,1)"
    )
    assert stages_of(PlainNetSpec(same), 224)[:3] == [
        [],
        [Conv(3, 224, 6)],
        [Conv(16, 56, 5), Conv(16, 28, 1), Conv(24, 28, 5), Conv(24, 28, 1)],
    ]


@pytest.mark.parametrize(
    ("stack", "depthwise", "tower"),
    [
        (1, False, [(16, 3)]),
        (2, False, [(16, 3), (24, 3)]),
        (2, True, [(16, 3), (16, 1), (24, 3), (24, 1)]),
    ],
)
def test_the_detector_score_counts_neck_and_head_by_hand(
    stack: int, depthwise: bool, tower: list[tuple[int, int]]
) -> None:
    """``tower``: channels read and kernel of its convolutions, of a neck of 16 and head of 24."""
    shipped = get_architecture("edgeface-n")
    architecture = dataclasses.replace(
        shipped, neck=PyramidSpec("fpn", 16), head=PlainHeadSpec(24, stack, depthwise=depthwise)
    )
    assert isinstance(architecture.backbone, ConvNetSpec)
    expected = 0.0
    for weight, stage, stride, channels in zip(
        WEIGHTS[2:],
        stages_of(architecture.backbone, 224)[2:],
        (8, 16, 32),
        architecture.backbone.widths[1:],
        strict=True,
    ):
        side, more = 224 // stride, [(channels, 1), *tower]
        ses = math.exp(expressivity(stage)) + sum(3 * side**2 * math.log(c / 3) for c, _ in more)
        fss = sum(conv.kernel for conv in stage) + sum(kernel for _, kernel in more)
        expected += weight * (math.log(ses) + 0.05 * fss)
    expected += WEIGHTS[1] * (expressivity([Conv(3, 224, 6)]) + 0.05 * 6)
    assert detector_score(architecture, alpha=0.05) == pytest.approx(expected / sum(WEIGHTS[1:]))


def test_the_detector_score_is_for_fpn_and_the_plain_head_alone() -> None:
    other = dataclasses.replace(get_architecture("edgeface-n"), neck=PyramidSpec("pafpn", 16))
    with pytest.raises(ModelError, match="for neck fpn and head plain, this is pafpn with plain"):
        detector_score(other)
    with pytest.raises(ModelError, match="for neck fpn and head plain, this is pafpn with scrfd"):
        detector_score(get_architecture("damofd-0.5g"))


def test_widths_of_a_stage_of_several_blocks() -> None:
    """The lateral convolution reads the output of the last block of a stage."""
    one = (
        "SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,8,2,8,1)SuperResK3K3(8,16,2,8,1)"
        "SuperResK3K3(16,24,2,8,1)SuperResK3K3(24,32,2,8,1)SuperResK3K3(32,48,1,8,1)"
    )
    shipped = get_architecture("edgeface-n")
    wide, narrow = (
        dataclasses.replace(shipped, backbone=PlainNetSpec(text))
        for text in (one, one.replace("(32,48", "(32,40"))
    )
    lateral = math.log(48 / 40) * 3 * 7**2
    c5 = [*stages_of(narrow.backbone, 224)[4], Conv(40, 7, 1), Conv(shipped.neck.channels, 7, 3)]
    before = math.exp(expressivity(c5))
    gain = WEIGHTS[4] / sum(WEIGHTS[1:]) * (math.log(before + lateral) - math.log(before))
    assert detector_score(wide, 0.0) - detector_score(narrow, 0.0) == pytest.approx(gain)


@pytest.mark.parametrize(
    "backbone",
    [
        MobileNetSpec((), ()),
        MobileNetSpec(widths=(8,) * 6, depths=(1,)),
        ResNetSpec((8,), (), ""),
        ResNetSpec(block="basic", widths=(8, 8, 8, 8, 0), depths=(1, 1, 1, 2)),
    ],
)
def test_malformed_backbones_are_one_line(backbone: MobileNetSpec | ResNetSpec) -> None:
    with pytest.raises(
        ModelError, match=r"do not describe five stages|width is below 1|this one has 1"
    ) as caught:
        score(backbone)
    assert "\n" not in str(caught.value)


# -- edgeface score -----------------------------------------------------------


def run(*arguments: str) -> Any:
    from typer.testing import CliRunner

    from edgeface.cli.app import app

    return CliRunner().invoke(app, ["score", *arguments])


def test_command_prints_the_published_score(tmp_path: Path) -> None:
    """A zoo name, a structure string and a file of the same backbone give the same score."""
    architecture = get_architecture("damofd-0.5g")
    path = tmp_path / "net.json"
    path.write_text(architecture.dumps())
    found = [
        json.loads(run(text, "--alpha", "0.005", "--format", "json").stdout)
        for text in ("damofd-0.5g", architecture.structure, str(path))
    ]
    assert found[0] == found[1] == found[2]
    assert (
        found[0]["ddsar"] == pytest.approx(9.335759, abs=1e-6)
        and found[0]["corrected"] > found[0]["ddsar"]
    )
    assert list(found[0]["stages"]) == ["stem", "c2", "c3", "c4", "c5"]
    assert "DDSAR 13.177359 as published" in run("damofd-0.5g").stdout


def test_command_weighs_stages_for_the_faces_given(tmp_path: Path) -> None:
    """All valid faces have the area of 40x40 px: only c4 counts, so the score is its layers'."""
    path = tmp_path / "faces.txt"
    path.write_text(
        "a.jpg\n2\n0 0 20 80 0 0 0 0 0 0\n9 9 100 100 0 0 0 1 0 0\n"
        "b.jpg\n1\n5 5 80 20 0 0 0 0 0 0\n"
    )
    found = json.loads(
        run("damofd-0.5g", "--data", str(path), "--alpha", "0", "--format", "json").stdout
    )
    assert found["weights"] == {"stem": 0, "c2": 0, "c3": 0, "c4": 1, "c5": 0}
    assert found["ddsar"] == pytest.approx(found["stages"]["c4"]["ses"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "unknown model 'nothing'"),
        (("SuperX",), "malformed"),
        (("none.json",), "cannot read none.json"),
        (("{folder}/vgg.json",), "unknown backbone 'vgg' .known: convnet, plainnet"),
        (("damofd-0.5g", "--alpha", "nan"), "--alpha nan"),
        (("damofd-0.5g", "--data", "none.csv"), "none.csv"),
    ],
)
def test_command_refuses(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    text = get_architecture("edgeface-n").dumps()
    (tmp_path / "vgg.json").write_text(text.replace('"convnet"', '"vgg"'))
    arguments = tuple(argument.format(folder=tmp_path) for argument in arguments)
    with pytest.raises(EdgefaceError, match=message) as caught:
        raise run(*arguments).exception
    assert "\n" not in str(caught.value)
