"""Mistakes in a model name or Architecture file get one line that says what is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from edgeface.architecture import Architecture, get_architecture
from edgeface.architecture.registry import listed
from edgeface.errors import ModelError
from edgeface.models import build


def edited(name: str, **parts: dict[str, Any]) -> Architecture:
    """Return the Architecture of ``name`` with fields of its parts overwritten in its JSON."""
    data = get_architecture(name).to_json()
    for part, fields in parts.items():
        data[part] |= fields
    return Architecture.from_json(data)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "damofd",
            "unknown model 'damofd' (nearest: damofd-0.5g, damofd-2.5g, damofd-10g, damofd-34g; ",
        ),
        ("EXTD", "(nearest: extd-fpn-32-prelu, "),
        ("edgefase-n", "(nearest: edgeface-n, "),
        ("damofd-0.5gbn", "(nearest: damofd-0.5g-bn, "),
        ("scrfd-0.5g-kps-bn", "(nearest: scrfd-0.5g-kps, "),
        ("extd_ssd_48_lrelu", "(nearest: extd-ssd-48-lrelu, "),
        (
            "yolo",
            (
                "(known: edgeface-n, damofd-0.5g, scrfd-0.5g, extd-fpn-32-prelu, eresfd-16, asfd-d0"
                " and others; "
            ),
        ),
        ("", "unknown model '' (known: edgeface-n, "),
        ("x\ny" * 1000, "unknown model 'x\\ny"),
    ],
)
def test_unknown_model_names_the_nearest(name: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        build(name)
    message = str(caught.value)
    assert said in message and message.endswith(f"; `edgeface models` lists all {len(listed())})")
    assert "\n" not in message and len(message) < 250


@pytest.mark.parametrize(
    ("name", "parts", "said"),
    [
        (
            "scrfd-1g",
            {"backbone": {"kind": "vgg"}},
            "unknown backbone 'vgg' (known: convnet, plainnet, mobilenetv1, resnetv1e",
        ),
        (
            "scrfd-1g",
            {"backbone": {"widths": [8, 8]}},
            "widths is (8, 8), accepted: 6 whole numbers",
        ),
        (
            "scrfd-1g",
            {"backbone": {"widths": [8, 8, 8, 8, 8, "8"]}},
            "backbone.widths[5]: expected an integer, got '8'",
        ),
        ("scrfd-1g", {"backbone": {"depths": [1, 1, 1, 0]}}, "depths[3] is 0"),
        ("scrfd-1g", {"backbone": {"depths": 3}}, "backbone.depths: expected a list, got 3"),
        ("scrfd-1g", {"backbone": {"block": "basic"}}, "block is for resnetv1e and asfd only"),
        (
            "scrfd-34g",
            {"backbone": {"block": "wide"}},
            "unknown block 'wide' (known: basic, bottleneck)",
        ),
        ("scrfd-34g", {"backbone": {"widths": [56, 224, 224, 576, 735]}}, "multiples of 4"),
        (
            "edgeface-n",
            {"backbone": {"widths": [8, 8, 8]}},
            "widths is (8, 8, 8), accepted: 4 whole numbers",
        ),
        ("edgeface-n", {"backbone": {"structure": "x"}}, "structure is for plainnet only"),
        (
            "damofd-0.5g",
            {"backbone": {"structure": "SuperConvK3BNRELU(3,32,2,1)SuperResK2K2(32,8,2,8,1)"}},
            "block 2, 'SuperResK2K2(32,8,2,8,1)', is malformed; accepted: SuperConvK3BNRELU",
        ),
        (
            "damofd-0.5g",
            {"backbone": {"structure": "SuperResK3K3(3,8,2,8,1)"}},
            "cannot be the stem",
        ),
        (
            "damofd-0.5g",
            {"backbone": {"structure": "SuperConvK3BNRELU(3,32,2,1)SuperResK3K3(32,8,2,8,1)"}},
            "its strides are [2, 2], accepted: [2, 2, 2, 2, 2] or [4, 2, 2, 2]",
        ),
        (
            "damofd-0.5g",
            {"backbone": {"structure": "SuperConvK6BNRELU(3,32,2,1)"}},
            "stride is 2, accepted: 4 with kernel 6",
        ),
        (
            "damofd-0.5g",
            {"backbone": {"structure": "SuperConvK6BNRELU(3,32,4,2)"}},
            "layers is 2, accepted: 1",
        ),
        ("damofd-0.5g", {"neck": {"kind": "bifpn"}}, "unknown neck 'bifpn' (known: fpn, pafpn"),
        (
            "damofd-0.5g",
            {"neck": {"channels": -1}},
            "channels is -1, accepted: a whole number of at least 1",
        ),
        ("damofd-0.5g", {"head": {"kind": "ssd"}}, "unknown head 'ssd' (known: scrfd, plain"),
        ("damofd-0.5g", {"head": {"norm": "layer"}}, "unknown norm 'layer' (known: batch, group)"),
        (
            "damofd-0.5g",
            {"head": {"groups": 7}},
            "groups is 7, accepted: a divisor of its channels (64; with depthwise",
        ),
        ("damofd-0.5g", {"head": {"groups": 0}}, "groups is 0"),
        ("damofd-0.5g", {"head": {"anchors": 0}}, "anchors is 0"),
        ("damofd-0.5g", {"head": {"stack": 1.5}}, "head.stack: expected an integer, got 1.5"),
        ("damofd-0.5g", {"head": {"landmarks": 4}}, "head scrfd: landmarks is 4, accepted: 0 or 5"),
        (
            "eresfd-16",
            {"head": {"landmarks": 5}},
            "head s3fd: landmarks is for scrfd and plain",
        ),
        ("damofd-0.5g", {"head": {"kernel": 3}}, "kernel is for plain and s3fd only, leave it out"),
        ("edgeface-n", {"head": {"kernel": 2}}, "head plain: kernel is 2, accepted: 1 or 3"),
        ("eresfd-16", {"head": {"kernel": 2}}, "head s3fd: kernel is 2, accepted: 1 or 3"),
        ("eresfd-16", {"neck": {"kind": "fpn"}}, "neck fpn reads 3 maps, the backbone gives 6"),
        (
            "extd-ssd-32-relu",
            {"head": {"kind": "plain", "stack": 1, "prior": [], "maxout": "", "kernel": 1}},
            "head plain reads 3 maps, the backbone gives 6",
        ),
        (
            "edgeface-n",
            {"head": {"kind": "s3fd", "prior": [4.0, 4.0], "landmarks": 0}},
            "head s3fd reads 6 maps, the backbone gives 3",
        ),
        ("edgeface-n", {"head": {"prior": [4.0, 4.0]}}, "prior is for s3fd only, leave it out"),
        ("damofd-0.5g", {"input": {"std": 0}}, "std 0, accepted: a number each"),
    ],
)
def test_architecture_that_cannot_be_built(name: str, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        build(edited(name, **parts))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stride_1_super_block_continues_its_stage() -> None:
    structure = get_architecture("damofd-0.5g").structure
    split = structure.replace(
        "SuperResIDWE1K7(64,120,2,40,2)",
        "SuperResIDWE1K7(64,96,2,40,1)SuperResIDWE1K7(96,120,1,40,1)",
    )
    model = build(edited("damofd-0.5g", backbone={"structure": split}))
    assert model.backbone.channels == (64, 120, 160)


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        (("name",), 3, "a string"),
        (("head", "offset"), "0.5", "a number"),
        (("head", "depthwise"), 1, "true or false"),
        (("head", "anchors"), True, "an integer"),
        (("backbone", "kind"), ["convnet"], "a string"),
        (("backbone", "widths"), [32, 48.5, 64, 64], "an integer"),
        (("neck",), [], "an object"),
    ],
)
def test_wrong_types_in_json_are_named(path: tuple[str, ...], value: object, wanted: str) -> None:
    data = get_architecture("edgeface-n").to_json()
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ModelError, match=wanted):
        Architecture.from_json(data)
