"""The benchmarks of apps: OpenCV's detector, a browser, and a wheel in a fresh environment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import browser, install, opencv
from edgeface import zoo
from edgeface.bundle import Bundle
from edgeface.cli.demo import PAGE

ROOT = Path(__file__).parents[2]
INT8 = zoo.BUNDLES / "edgeface-n-tflite-int8-640x480"
FLOAT = zoo.BUNDLES / "edgeface-n-tflite-fp32-640x480"


def test_opencv_beside_a_published_file(
    exported: Callable[..., Bundle], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Our own file stands in for YuNet's, so that both do the same work."""
    from export.apis import adapt

    made = adapt(exported("onnx", dynamic=True, landmarks=True), "opencv", tmp_path)
    options = ["--peer", str(made.primary), "--rounds", "2", "--save", str(tmp_path / "saved.json")]
    assert opencv.main([str(made.path), *options]) == 0
    result = json.loads((tmp_path / "saved.json").read_text())
    assert [row["name"] for row in result["rows"]] == [made.primary.stem, made.path.name]
    assert all(row["median"] > 0 and row["ratio"]["value"] > 0 for row in result["rows"])
    assert made.path.name in capfd.readouterr().out


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (opencv.main, [INT8], "is not for OpenCV: run: edgeface export --target onnx --for opencv"),
        (
            browser.main,
            [INT8.with_name("edgeface-n-ncnn-int8-640x480")],
            "does not run in LiteRT.js",
        ),
        (browser.main, [INT8], "takes .tflite files with a float32 input"),
        (browser.main, [FLOAT, "--packages", "none"], "playwright-core are needed"),
        (opencv.main, [INT8, "--rounds", "0"], "--rounds must be from 2 to 1000000, got 0"),
        (browser.main, [INT8, "--per-round", "0"], "--per-round must be from 1 to 1000000, got 0"),
        (install.main, ["none.whl"], "no wheel at none.whl: run: make package"),
    ],
)
def test_what_cannot_be_is_one_line(
    main: Callable[..., int],
    arguments: list[object],
    words: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code, (out, err) = main([str(word) for word in arguments]), capfd.readouterr()
    assert code == 2 and out == "" and words in err


@pytest.mark.slow
def test_in_a_browser_beside_the_runtime(tmp_path: Path) -> None:
    """The INT8 file used here takes float input."""
    from export.apis import adapt

    modules = Path(os.environ.get("EDGEFACE_NODE_MODULES", PAGE / "node_modules"))
    if not (modules / "playwright-core").is_dir():
        pytest.skip(f"{modules} lacks playwright-core: set EDGEFACE_NODE_MODULES")
    options = ["--packages", modules, "--rounds", 2, "--per-round", 1]
    saved, made = tmp_path / "saved.json", adapt(Bundle.open(INT8), "mediapipe", tmp_path)
    assert browser.main([str(word) for word in (made.path, *options, "--save", saved)]) == 0
    rows = json.loads(saved.read_text())["rows"]
    assert [row["name"] for row in rows] == ["LiteRT", "LiteRT.js"]
    assert all(row["min"] > 0 for row in rows)
