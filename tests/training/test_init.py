"""``fill``: what a network takes from a file of weights, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import with_part
from safetensors.torch import save_file
from small_runs import NET

from edgeface.architecture import Architecture, get_architecture
from edgeface.errors import ModelError
from edgeface.images import Image
from edgeface.models import build
from edgeface.models.detector import FaceNet
from edgeface.training.start import fill
from edgeface.zoo import load_network, save_weights

WITH_LANDMARKS = with_part(NET, "head", "mine", landmarks=5)
BOXES = with_part(NET, "head", "boxes", landmarks=0)
WIDER = with_part(NET, "backbone", "wider", widths=(40, 48, 72, 64))
DEEPER = with_part(NET, "backbone", "deeper", depths=(2, 1, 3))
LARGER_HEAD = with_part(NET, "head", "larger head", channels=40, anchors=2)


@pytest.fixture(scope="module")
def photo(astronaut: Image) -> torch.Tensor:
    return torch.from_numpy(astronaut.transpose(2, 0, 1)[None].astype(np.float32))


def outputs(network: FaceNet, photo: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(network.eval()(photo))


@pytest.mark.parametrize("larger", [WIDER, DEEPER, LARGER_HEAD], ids=lambda net: net.name)
def test_a_larger_network_begins_with_the_outputs_of_the_smaller(
    larger: Architecture, photo: torch.Tensor
) -> None:
    large = build(larger, seed=5)
    fit = fill(large, "edgeface-n")
    assert bool(fit.grown) == ("as part of a larger one" in str(fit)) == (larger is not DEEPER)
    assert bool(fit.missing) == ("begin at random" in str(fit)) == (larger is DEEPER)
    expected = outputs(load_network("edgeface-n"), photo)
    for ours, theirs in zip(outputs(large, photo), expected, strict=True):
        # Zeros are added, perhaps in another order of sums.
        torch.testing.assert_close(ours[:, : theirs.shape[1]], theirs, rtol=1e-4, atol=1e-4)


GROUPED = get_architecture("scrfd-0.5g")


@pytest.mark.parametrize(
    ("old", "larger", "random"),
    [
        ("extd-fpn-32-relu", get_architecture("extd-fpn-48-relu"), None),
        ("eresfd-16", get_architecture("eresfd-32"), None),
        ("scrfd-0.5g", with_part(GROUPED, "head", channels=96), "head."),
    ],
)
def test_channels_that_would_get_another_meaning_do_not_fit(
    old: str, larger: Architecture, random: str | None, tmp_path: Path
) -> None:
    """Widened like ours, each would begin with other outputs than the smaller network."""
    save_weights(build(old), tmp_path / "old.safetensors")
    if random is None:
        with pytest.raises(ModelError, match="of another network"):
            fill(build(larger), str(tmp_path / "old.safetensors"))
    else:
        fit = fill(build(larger), str(tmp_path / "old.safetensors"))
        assert fit.grown == () and fit.missing
        assert all(name.startswith(random) for name in fit.missing)


def test_new_channels_are_learned(photo: torch.Tensor) -> None:
    large = build(WIDER, seed=5)
    fill(large, "edgeface-n")
    sum(each.square().mean() for each in large.train()(photo)).backward()
    gradient = large.get_parameter("backbone.stages.0.0.conv.weight").grad
    assert gradient is not None
    assert gradient.shape == (48, 40, 3, 3) and gradient[:, 32:].abs().amax(dim=(0, 2, 3)).min() > 0


def test_a_larger_tensor_and_another_kernel_do_not_fit(tmp_path: Path) -> None:
    narrow, wide_stem = with_part(NET, "head", kernel=3), (40, 48, 64, 64)
    save_weights(build(with_part(NET, "backbone", widths=wide_stem)), tmp_path / "wide.safetensors")
    fit = fill(build(narrow), str(tmp_path / "wide.safetensors"))
    assert fit.grown == ()
    outside = {name for name in fit.missing if not name.startswith("backbone.stem")}
    kernels = {f"head.{part}.conv.weight" for i in range(3) for part in (f"cls.{i}", f"box.{i}")}
    points = {f"head.kps.{i}.0.conv.weight" for i in range(3)}
    assert outside == {"backbone.stages.0.0.conv.weight", *kernels, *points}


def test_a_new_head_begins_at_random_and_is_named(tmp_path: Path) -> None:
    boxes = build(BOXES, seed=2)
    save_weights(boxes, tmp_path / "boxes.safetensors")
    model = build(WITH_LANDMARKS, seed=3)
    fit = fill(model, str(tmp_path / "boxes.safetensors"))
    assert fit.missing and all(name.startswith("head.kps") for name in fit.missing)
    assert fit.missing[0] in str(fit) and "begin at random" in str(fit)
    assert set(fit.fitting) == {
        k for k in boxes.state_dict() if not k.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "cannot read"),
        ("damaged", "not a whole safetensors file"),
        ("family", r"of another network: \d+ of"),
        ("checkpoint", "pass the weights.safetensors"),
        ("nan", "not finite: backbone"),
    ],
)
def test_a_file_that_cannot_begin_a_run_is_refused(kind: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "init.safetensors"
    tensors = {k: v.contiguous() for k, v in build("edgeface-n").state_dict().items()}
    if kind == "damaged":
        path.write_bytes(b"\0" * 20)
    elif kind == "family":
        save_weights(build("eresfd-16"), path)
    elif kind == "checkpoint":
        save_file({f"model.{k}": v for k, v in tensors.items()}, path)
    elif kind == "nan":
        first = next(k for k in tensors if k.startswith("backbone."))
        save_file(tensors | {first: torch.full_like(tensors[first], torch.nan)}, path)
    model = build("edgeface-n", seed=1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ModelError, match=message) as caught:
        fill(model, str(path))
    assert "\n" not in str(caught.value)
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())
