"""Head of the S3FD family: outputs mean the same as the authors', folded or not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edgeface.architecture import Architecture, S3FDHeadSpec, get_architecture
from edgeface.decode import HeadLayout, decode
from edgeface.errors import ModelError
from edgeface.models.head import build_head
from edgeface.models.s3fd import S3FDHead

SPEC = S3FDHeadSpec(8, 0, prior=(4.0, 5.0), maxout="in-out")


def _head(maxout: str, kernel: int) -> S3FDHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        head = build_head(dataclasses.replace(SPEC, maxout=maxout, kernel=kernel), 8)
        assert isinstance(head, S3FDHead)
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter)
    return head.eval()


def _maps(height: int, width: int) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(5)
    return tuple(
        torch.randn(1, 8, -(-height // s), -(-width // s), generator=random)
        for s in (4, 8, 16, 32, 64, 128)
    )


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("maxout", ["", "out", "in-out"])
def test_one_logit_is_the_softmax_of_the_largest_two(maxout: str, kernel: int) -> None:
    head, maps = _head(maxout, kernel), _maps(100, 75)
    outputs = head(maps)
    for level, (loc, conf) in enumerate(head.raw(maps)):
        background, face = (
            (conf[:, :3], conf[:, 3:]) if maxout and level == 0 else (conf[:, :1], conf[:, 1:])
        )
        assert face.shape[1] == (3 if maxout == "in-out" and level else 1)
        pair = torch.stack([background.max(1).values, face.max(1).values], 1)
        # The two ways of rounding differ by a few units in the last place of float32.
        torch.testing.assert_close(
            outputs[2 * level].sigmoid(), pair.softmax(1)[:, 1:], rtol=1e-5, atol=1e-6
        )
        expected = loc * torch.tensor([0.1, 0.1, 0.2, 0.2])[:, None, None]
        torch.testing.assert_close(outputs[2 * level + 1], expected)


@pytest.mark.parametrize("maxout", ["", "out", "in-out"])
def test_folded_head_computes_the_same(maxout: str) -> None:
    head, maps = _head(maxout, 3).double(), tuple(m.double() for m in _maps(128, 96))
    folded = head.folded().double()
    for found, expected in zip(folded(maps), head(maps), strict=True):
        torch.testing.assert_close(
            found, expected, rtol=1e-5, atol=1e-5
        )  # folded weights were rounded to float32


def test_ssd_coding_against_its_formula() -> None:
    head, (height, width) = _head("out", 1), (100, 75)
    names = HeadLayout((4, 8, 16, 32, 64, 128), coding="ssd", prior=(4.0, 5.0))
    with torch.inference_mode():
        values = head(_maps(height, width))
    outputs = {
        n: v.permute(0, 2, 3, 1).numpy() for n, v in zip(names.output_names, values, strict=True)
    }
    boxes, scores, _ = decode(outputs, names, 0.0)
    expected = []
    for s in names.strides:
        for row in range(-(-height // s)):
            for column in range(-(-width // s)):
                x, y, w, h = (float(v) for v in outputs[f"box_{s}"][0, row, column])
                cx, cy = (column + 0.5) * s + x * 4 * s, (row + 0.5) * s + y * 5 * s
                half_w, half_h = 4 * s * np.exp(w) / 2, 5 * s * np.exp(h) / 2
                logit = float(outputs[f"cls_{s}"][0, row, column, 0])
                expected.append(
                    (1 / (1 + np.exp(-logit)), cx - half_w, cy - half_h, cx + half_w, cy + half_h)
                )
    expected.sort(key=lambda found: -found[0])
    np.testing.assert_allclose(scores, [e[0] for e in expected], rtol=1e-5)
    np.testing.assert_allclose(
        boxes, [e[1:] for e in expected], rtol=1e-4, atol=1e-2
    )  # px; coordinates are up to 10^4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prior": ()}, "prior is (), accepted: width and height in strides"),
        ({"maxout": "both"}, "maxout is 'both', accepted: out, in-out or nothing"),
        ({"anchors": 2}, "anchors is for scrfd and plain only, leave it out"),
        ({"landmarks": 5}, "landmarks is for scrfd and plain only, leave it out"),
        ({"channels": 16}, "channels is 16, accepted: the neck's 8"),
        ({"kernel": 0}, "kernel is 0"),
        ({"kind": "plain", "stack": 1}, "prior is for s3fd only, leave it out"),
    ],
)
def test_head_that_cannot_be_built(change: dict[str, object], said: str) -> None:
    data = dataclasses.replace(get_architecture("eresfd-16"), head=SPEC).to_json()
    data["head"] |= change
    with pytest.raises(ModelError) as caught:
        build_head(Architecture.from_json(data).head, 8)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        {"coding": "ssd"},
        {"coding": "ssd", "prior": [4.0]},
        {"prior": [4.0, 4.0]},
        {"coding": "ssd", "prior": [4.0, 0.0]},
    ],
)
def test_layout_whose_prior_does_not_fit_its_coding(data: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="prior must be two positive numbers"):
        HeadLayout.from_json(data)


def test_text_of_other_networks_knows_nothing_of_the_family() -> None:
    data = get_architecture("edgeface-n").to_json()
    assert sorted(data["neck"]) == ["channels", "kind"]
    assert (
        not {"prior", "kernel", "maxout", "dual"} & set(data["head"])
        and "activation" not in data["backbone"]
    )
    assert "prior" in get_architecture("eresfd-16").to_json()["head"]
