"""``edgeface quantize``: what it prints, and one clear line for every mistake."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
from commands import Command, CommandInto, failed

from edgeface import zoo
from edgeface.bundle import Bundle, write_bundle
from edgeface.cli.terminal import Terminal
from edgeface.errors import DeviceError
from edgeface.zoo import save_weights

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cli(edgeface: Command, tmp_path: Path) -> CommandInto:
    return CommandInto(edgeface, "quantize", tmp_path / "dist")


@pytest.fixture
def usual(float_bundle: Bundle, mini_wider: Path) -> tuple[str | Path | int, ...]:
    """Arguments that work."""
    return ("--target", "onnx", "--bundle", float_bundle.path, "--data", mini_wider, "--images", 6)


def fails(cli: CommandInto, *arguments: str | Path | int) -> str:
    """Assert that the command failed in one line and wrote no INT8 Bundle; return the line."""
    line = failed(cli(*arguments))
    assert not list(cli.out.glob("edgeface*int8*"))
    return line


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--target", "coreml"), "unknown target 'coreml' (known: onnx, tflite"),
            (("--target", "onnx", "--size", "640x479"), "width and height must be multiples of 32"),
            (("--target", "onnx", "--format", "xml"), "unknown format 'xml' (known: table, json)"),
            (("--target", "onnx", "--model", "yolo"), "unknown model 'yolo' (known: edgeface-n, "),
            (
                ("--target", "onnx", "--max-drop", -1),
                "--max-drop (AP points) -1.0 is not a number between 0 and 100",
            ),
            (
                ("--target", "onnx", "--max-drop", "nan"),
                "--max-drop (AP points) nan is not a number between",
            ),
            (
                ("--target", "onnx", "--max-reverted", 2),
                "--max-reverted (share of the layers) 2.0 is not a number between 0 and 1",
            ),
            (("--target", "onnx", "--scale", "best"), "--scale best: onnx takes "),
            (
                ("--target", "onnx", "--bundle", "x", "--seed", 1),
                "--bundle excludes --weights and --seed",
            ),
            (
                ("--target", "onnx", "--bundle", "x", "--size", "64x64"),
                "--bundle excludes --model and --size",
            ),
            (
                ("--target", "onnx", "--bundle", "none"),
                "no Bundle at none: expected a folder with manifest.json",
            ),
        ],
    )
    def test_options(
        self, cli: CommandInto, arguments: tuple[str | int, ...], message: str
    ) -> None:
        assert message in fails(cli, *arguments)

    def test_neither_data_nor_no_accuracy(
        self, cli: CommandInto, float_bundle: Bundle, mini_wider: Path
    ) -> None:
        line = fails(
            cli, "--target", "onnx", "--bundle", float_bundle.path, "--calibration", mini_wider
        )
        assert "photos of your own with --data and --annotations" in line
        assert "or quantise without a budget with --no-accuracy" in line

    def test_a_weights_file_alone(self, cli: CommandInto, mini_wider: Path, tmp_path: Path) -> None:
        """The file is read before any long work. Its weights are not random, so they need a
        budget."""
        network = zoo.load_network("edgeface-n")
        save_weights(network, path := tmp_path / "mine.safetensors")
        arguments = ("--target", "onnx", "--model", path, "--calibration", mini_wider)
        assert "the accuracy budget needs annotated photos" in fails(cli, *arguments)
        assert "leave --weights out" in fails(cli, *arguments, "--weights", path)
        path.write_bytes(path.read_bytes()[:999])
        assert "mine.safetensors is not a whole safetensors file" in fails(cli, *arguments)

    def test_no_photos_at_all(self, cli: CommandInto, float_bundle: Bundle) -> None:
        line = fails(cli, "--target", "onnx", "--bundle", float_bundle.path, "--no-accuracy")
        assert "give a folder with --calibration, or a WIDER FACE root with --data" in line

    def test_data_is_not_wider(
        self, cli: CommandInto, float_bundle: Bundle, tmp_path: Path
    ) -> None:
        line = fails(cli, "--target", "onnx", "--bundle", float_bundle.path, "--data", tmp_path)
        assert "wider_face_val.mat" in line

    def test_calibration_folder(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...], tmp_path: Path
    ) -> None:
        folder = tmp_path / "photos"
        assert "does not exist" in fails(cli, *usual, "--calibration", folder)
        folder.mkdir()
        assert f"calibration folder {folder} is empty" in fails(
            cli, *usual, "--calibration", folder
        )
        (folder / "notes.txt").write_text("text")
        assert "has no photos: 1 file, such as notes.txt" in fails(
            cli, *usual, "--calibration", folder
        )
        cv2.imwrite(str(folder / "1.png"), np.zeros((9, 9, 3), np.uint8))
        line = fails(cli, *usual, "--calibration", folder)
        assert (
            "has 1 different photo, 6 were asked for: add some, or ask for fewer with --images 1"
            in line
        )
        (folder / "2.png").write_bytes((folder / "1.png").read_bytes()[:-20])
        code, out, err = cli(*usual, "--calibration", folder)
        assert code == 2 and out == "" and "2.png: the image is truncated or damaged" in err
        assert "has 1 different photo" in err
        assert "--images 0: give a number of photos" in fails(cli, *usual, "--images", 0)

    def test_bundle_of_another_target(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...]
    ) -> None:
        pytest.importorskip("quantize.tflite")
        line = fails(cli, *usual, "--target", "tflite")
        assert (
            "is made for onnx, --target says tflite: give one made for tflite, or --target onnx"
            in line
        )

    @pytest.mark.parametrize(
        ("precision", "dynamic", "message"),
        [
            (
                "fp16",
                False,
                (
                    "is fp16, INT8 is made from fp32: run: edgeface export --target onnx --model"
                    " edgeface-n"
                ),
            ),
            (
                "fp32",
                True,
                "takes images of any size, INT8 needs one size: run: edgeface export --target onnx",
            ),
        ],
    )
    def test_bundle_of_another_kind(
        self,
        cli: CommandInto,
        usual: tuple[str | Path | int, ...],
        precision: str,
        dynamic: bool,
        message: str,
        exported: Callable[..., Bundle],
    ) -> None:
        assert message in fails(cli, *usual, "--bundle", exported("onnx", precision, dynamic).path)

    def test_already_int8(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...], tmp_path: Path
    ) -> None:
        assert cli(*usual, "--no-accuracy")[0] == 0
        made = cli.out / "edgeface-n-onnx-int8-160x128"
        cli.out = tmp_path / "again"
        line = fails(cli, *usual, "--bundle", made)
        assert (
            f"{made} is already INT8: give the fp32 Bundle that it was made from, or run: edgeface"
            " export" in line
        )

    def test_damaged_bundle(
        self,
        cli: CommandInto,
        usual: tuple[str | Path | int, ...],
        float_bundle: Bundle,
        tmp_path: Path,
    ) -> None:
        copy = tmp_path / "copy"
        copy.mkdir()
        for path in float_bundle.path.iterdir():
            (copy / path.name).write_bytes(
                path.read_bytes()[: 1000 if path.suffix == ".onnx" else None]
            )
        assert "is truncated or altered" in fails(cli, *usual, "--bundle", copy)

    def test_budget_that_cannot_be_met(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...], tmp_path: Path
    ) -> None:
        for i in range(2):
            cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((9, 9 + i, 3), np.uint8))
        more = f"--calibration {tmp_path} --images 2 --scale kl --max-reverted 0"
        line = fails(cli, *usual, *shlex.split(more))
        assert "the budget of 0.5 AP points cannot be held: best drop " in line

    def test_output_is_a_file(self, cli: CommandInto, usual: tuple[str | Path | int, ...]) -> None:
        cli.out.write_text("mine")
        assert "is not a folder" in fails(cli, *usual)
        assert cli.out.read_text() == "mine"

    @pytest.mark.skipif(
        not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write"
    )
    def test_output_without_permission(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...]
    ) -> None:
        cli.out = Path("/proc/self/dist")
        assert "choose another folder with --out" in fails(cli, *usual)

    def test_missing_runtime(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert "pip install 'edgeface[onnx]'" in fails(cli, *usual)


class TestResult:
    def test_json(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...], float_bundle: Bundle
    ) -> None:
        code, out, err = cli(*usual, "--format", "json")
        assert code == 0, err
        result: dict[str, Any] = json.loads(out)
        bundle = Bundle.open(result["path"])
        assert bundle.path == cli.out / "edgeface-n-onnx-int8-160x128"
        assert (result["bytes"], result["float_bytes"]) == (
            bundle.size_bytes,
            float_bundle.size_bytes,
        )
        assert result["ratio"] == round(bundle.size_bytes / float_bundle.size_bytes, 4) < 0.35
        assert result["accuracy"] == bundle.manifest.accuracy
        assert set(result["drop"]) == {"easy", "medium", "hard"}
        assert max(result["drop"].values()) <= 0.5
        assert result["latency"]["int8"]["network_ms"]["min"] > 0
        assert "on this CPU" in result["speed"]
        steps = [line for line in err.splitlines() if not line.endswith(" ...")]
        assert [step[:21] for step in steps] == ["note: AP is that of 8"], err
        for step in (
            "reading the calibration photos",
            "observing the photos",
            "measuring float",
            "measuring INT8",
        ):
            assert f"{step} ..." in err

    def test_a_plot_replaces_no_photo(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...], mini_wider: Path
    ) -> None:
        photo = next((mini_wider / "WIDER_train").rglob("*.*g"))
        plot = photo.with_suffix(".png")
        if plot != photo:
            plot.hardlink_to(photo)
        line = fails(cli, *usual, "--plot", plot)
        assert "is the input" in line and "which it would replace" in line
        if plot != photo:
            plot.unlink()

    def test_table_and_picture(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...], tmp_path: Path
    ) -> None:
        plot = tmp_path / "report.png"
        code, out, err = cli(*usual, "--plot", plot)
        assert code == 0, err
        assert (
            f"edgeface detect photo.jpg --model {cli.out / 'edgeface-n-onnx-int8-160x128'}" in out
        )
        for word in (
            "cls_8",
            "box_32",
            "easy",
            "medium",
            "hard",
            "96+",
            "budget 0.5 points in the worst of easy",
            "over 6 photos",
            "of fp32 (",
            "minimum",
            "on this CPU",
        ):
            assert word in out, word
        picture = cv2.imread(str(plot))
        assert picture is not None and picture.shape[1] > 800

    def test_without_accuracy_it_is_clearly_said(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...], tmp_path: Path
    ) -> None:
        code, out, err = cli(*usual, "--no-accuracy", "--plot", tmp_path / "report.png")
        assert code == 0, err
        assert "accuracy was not measured: left out with --no-accuracy" in out
        assert (
            "note: accuracy is not measured and no budget is held: left out with --no-accuracy"
            in err
        )

    def test_exports_random_weights(self, cli: CommandInto, mini_wider: Path) -> None:
        words = f"--target onnx --size 64x64 --seed 4 --images 2 --calibration {mini_wider}"
        code, out, err = cli(*shlex.split(words))
        assert code == 0, err
        assert "accuracy was not measured: the weights are random, so AP says nothing" in out
        assert "converting to onnx ..." in err
        assert {p.name for p in cli.out.iterdir()} == {
            "edgeface-n-onnx-fp32-64x64",
            "edgeface-n-onnx-int8-64x64",
        }

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), DeviceError("it is too busy")])
    def test_what_is_written_stays_where_latency_cannot_be_measured(
        self,
        cli: CommandInto,
        usual: tuple[str | Path | int, ...],
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
    ) -> None:
        def fail(*_: object) -> NoReturn:
            raise error

        monkeypatch.setattr("quantize.report.measure_latency", fail)
        code, out, err = cli(*usual, "--no-accuracy", "--format", "json")
        made = cli.out / "edgeface-n-onnx-int8-160x128"
        assert Bundle.open(made).manifest.precision == "int8"
        if isinstance(error, KeyboardInterrupt):
            assert (code, out) == (130, "") and f"{made} is written" in err
        else:
            assert code == 0 and "note: latency is not measured: it is too busy" in err
            assert json.loads(out)["latency"] == {} and json.loads(out)["speed"] is None
            code, out, _ = cli(*usual, "--no-accuracy")
            assert code == 0 and "next       edgeface detect" in out and "latency" not in out

    def test_a_bundle_of_own_weights_is_exported_again_from_them(
        self,
        cli: CommandInto,
        usual: tuple[str | Path | int, ...],
        exported: Callable[..., Bundle],
        tmp_path: Path,
    ) -> None:
        dynamic = exported("onnx", "fp32", True)
        manifest = dataclasses.replace(dynamic.manifest, model="edgeface-n-1a2b3c4d")
        files = {name: dynamic.read(name) for name in dynamic.manifest.files}
        own = write_bundle(tmp_path / "own", manifest, files)
        line = fails(cli, *usual, "--bundle", own.path)
        assert "export the weights file it was made of again, in fp32 and with --size" in line
        assert "1a2b3c4d --size" not in line

    def test_stopped(
        self, cli: CommandInto, usual: tuple[str | Path | int, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = Terminal.tick

        def stop(self: Terminal, what: str, done: int, total: int, note: str = "") -> None:
            original(self, what, done, total, note)
            if what == "measuring INT8":
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Terminal, "tick", stop)
            code, out, err = cli(*usual)
        assert (code, out) == (130, "")
        assert err.endswith("stopped: run the same command again to continue\n")
        code, _, err = cli(*usual)
        assert code == 0
        assert "measuring float ..." not in err and "measuring INT8 ..." in err
