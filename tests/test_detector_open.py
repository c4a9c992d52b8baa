"""Detector.open: Bundles, networks by name with the shipped or own weights, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeface import Bundle, Detector
from edgeface.errors import BundleError, EdgefaceError, ModelError, OptionError


def test_open_bundle(exported: Callable[..., Bundle], astronaut: Any) -> None:
    bundle = exported("onnx")
    with Detector.open(bundle.path, score_threshold=0.3) as detector:
        found = detector.detect(astronaut)
    assert len(found) > 0 and (found.boxes >= 0).all() and (found.boxes <= 512).all()
    with Detector.open(
        str(bundle.path / "manifest.json"), threads=2, score_threshold=0.3
    ) as detector:
        assert len(detector.detect(astronaut)) == len(found)
    with pytest.raises(OptionError, match="fixed at"):
        Detector.open(bundle.path, size=320)


def test_open_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError, match="unknown model 'edgefase-n': no such Bundle folder, and the zoo has"
    ):
        Detector.open("edgefase-n")
    for mistyped, nearest in (
        (
            "edgeface-n-tflite-int8",
            "nearest: edgeface-n-tflite-int8-640x480, edgeface-n-tflite-int",
        ),
        ("edgeface-n-ncnn-fp32-640x480", r"nearest: (.*, )?edgeface-n-ncnn-int8-640x480"),
        ("edgeface-m", "nearest: edgeface-"),
    ):
        with pytest.raises(ModelError, match=rf"^unknown model .*{nearest}.*`edgeface models`"):
            Detector.open(mistyped)
    with pytest.raises(BundleError, match="no Bundle at"):
        Detector.open(tmp_path / "none")
    with pytest.raises(BundleError, match="has no manifest"):
        Detector.open(tmp_path)
    with pytest.raises(ModelError, match="ships without weights"):
        Detector.open("scrfd-34g")


def test_own_weights_for_a_network_by_name(
    exported: Callable[..., Bundle], astronaut: Any, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    from edgeface import zoo
    from edgeface.runners.torch import TorchRunner
    from edgeface.zoo import save_weights

    shipped = zoo.FOLDER / zoo.get_entry("edgeface-n").weights
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(shipped.read_bytes())
    found = [
        Detector(TorchRunner.open("edgeface-n"), size=320).detect(astronaut),
        Detector.open("edgeface-n", size=320, weights=copy).detect(astronaut),
    ]
    assert found[0] == found[1] and len(found[0]) > 0
    save_weights(zoo.load_network("edgeface-n"), alone := tmp_path / "alone.safetensors")
    assert Detector.open(str(alone), size=320).detect(astronaut) == found[0]
    refusals: list[tuple[str, Path, type[Exception], str]] = [
        (
            "eresfd-16",
            copy,
            ModelError,
            r"mine.safetensors: the weights do not fit eresfd-16: .* is absent, expected "
            r".*: name its network with --model",
        ),
        ("edgeface-n", tmp_path / "none", ModelError, "cannot read weights .*none"),
        (
            "edgefase-n",
            copy,
            OptionError,
            "are for a network, not for 'edgefase-n': name one that `edgeface models`",
        ),
        (str(exported("onnx").path), copy, OptionError, "a Bundle has weights of its own"),
        (
            str(alone),
            copy,
            OptionError,
            "alone.safetensors is a file of weights: leave --weights out",
        ),
    ]
    for model, weights, error, said in refusals:
        with pytest.raises(error, match=said) as caught:
            Detector.open(model, weights=weights)
        assert "\n" not in str(caught.value)


def test_a_file_of_a_bundle_is_told_its_folder(exported: Callable[..., Bundle]) -> None:
    bundle = exported("onnx")
    for open_it in (Detector.open, Bundle.open):
        with pytest.raises(EdgefaceError, match=r"is a file of a Bundle: give its folder, .*128$"):
            open_it(bundle.primary)
