"""``edgeface export``: what it prints, and one clear line for every mistake."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command, CommandInto, failed
from safetensors.torch import save_file

from edgeface.backends import BACKENDS
from edgeface.bundle import Bundle
from edgeface.models import build
from edgeface.quiet import quiet_stage
from export.source import load_source, random_source

CHECKOUT = Path(__file__).resolve().parents[2]
SMALL = ("--size", "64x64")


@pytest.fixture
def cli(edgeface: Command, tmp_path: Path) -> CommandInto:
    return CommandInto(edgeface, "export", tmp_path / "dist")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of edgeface-n as a training writes them."""
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    state = random_source("edgeface-n", 5).network.state_dict()
    save_file({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    return path


def fails(cli: CommandInto, *arguments: str | Path) -> str:
    """Assert that the command failed in one line and wrote nothing; return the line."""
    line = failed(cli(*arguments))
    assert not cli.out.exists() or cli.out.is_file() or not list(cli.out.iterdir())
    return line


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--target", "coreml"), r"unknown target 'coreml' (known: onnx, tflite"),
            (
                ("--target", "onnx", "--precision", "fp8"),
                "unknown precision 'fp8' (known: fp32, fp16, int8)",
            ),
            (
                ("--target", "tflite", "--precision", "int8"),
                "int8 files are made from float ones and photos: run: edgeface quantize --target",
            ),
            (("--target", "onnx", "--size", "640x479"), "width and height must be multiples of 32"),
            (("--target", "onnx", "--size", "0x0"), "width and height must be multiples of 32"),
            (("--target", "onnx", "--size", "big"), "is not WIDTHxHEIGHT, for example 640x480"),
            (("--target", "tflite", "--dynamic"), "--dynamic: a tflite file has one fixed size"),
            (("--target", "onnx", "--format", "xml"), "unknown format 'xml' (known: table, json)"),
            (("--target", "onnx", "--model", "yolo"), "unknown model 'yolo' (known: edgeface-n, "),
            (
                ("--target", "onnx", "--seed", "-1"),
                "'--seed': Input should be greater than or equal to 0",
            ),
            (
                ("--target", "onnx", "--weights", "a", "--seed", "1"),
                "--weights and --seed exclude each other",
            ),
        ],
    )
    def test_options(self, cli: CommandInto, arguments: tuple[str, ...], message: str) -> None:
        assert message in fails(cli, *arguments)

    def test_missing_weights(self, cli: CommandInto, tmp_path: Path) -> None:
        path = tmp_path / "none.safetensors"
        assert f"cannot read weights {path}" in fails(cli, "--target", "onnx", "--weights", path)

    @pytest.mark.parametrize("kept", [0, 7, 5000, -1])
    def test_truncated_weights(
        self, cli: CommandInto, weights: Path, tmp_path: Path, kept: int
    ) -> None:
        path = tmp_path / "cut.safetensors"
        path.write_bytes(weights.read_bytes()[:kept])
        assert f"{path} is not a whole safetensors file" in fails(
            cli, "--target", "onnx", "--weights", path
        )

    def test_foreign_weights(self, cli: CommandInto, weights: Path) -> None:
        line = fails(cli, "--target", "onnx", "--weights", weights, "--model", "scrfd-0.5g")
        assert f"{weights}: the weights do not fit scrfd-0.5g: backbone." in line
        assert line.endswith("name its network with --model")

    def test_misshapen_and_infinite_weights(self, cli: CommandInto, tmp_path: Path) -> None:
        state = build("edgeface-n").state_dict()
        key = "backbone.stem.conv.weight"
        path = tmp_path / "bad.safetensors"
        for bad in (state[key][:, :2], torch.full_like(state[key], torch.inf)):
            save_file(state | {key: bad.contiguous()}, path)
            assert key in fails(cli, "--target", "onnx", "--weights", path)

    def test_output_is_a_file(self, cli: CommandInto) -> None:
        cli.out.write_text("mine")
        assert "is not a folder" in fails(cli, "--target", "onnx", *SMALL)
        assert cli.out.read_text() == "mine"

    @pytest.mark.skipif(
        not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write"
    )
    def test_output_without_permission(self, cli: CommandInto) -> None:
        cli.out = Path("/proc/self/dist")
        line = fails(cli, "--target", "onnx", *SMALL)
        assert line.startswith("error: cannot write /proc/self/dist: ")
        assert line.endswith("choose another folder with --out")

    def test_disk_full(self, cli: CommandInto, monkeypatch: pytest.MonkeyPatch) -> None:
        original = Path.write_bytes

        def full(self: Path, data: bytes) -> int:
            if cli.out in self.parents:
                original(self, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(self, data)

        monkeypatch.setattr(Path, "write_bytes", full)
        assert "No space left on device" in fails(cli, "--target", "onnx", *SMALL)

    @pytest.mark.parametrize(
        ("target", "package", "name"),
        [
            ("onnx", "torch", "torch"),
            ("onnx", "onnxsim", "onnxsim"),
            ("tflite", "litert_torch", "litert-torch"),
        ],
    )
    def test_missing_extra(
        self,
        cli: CommandInto,
        monkeypatch: pytest.MonkeyPatch,
        target: str,
        package: str,
        name: str,
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        line = fails(cli, "--target", target, *SMALL)
        assert f"needs the package '{name}': run: pip install 'edgeface[export]'" in line

    def test_missing_runtime(self, cli: CommandInto, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert "pip install 'edgeface[onnx]'" in fails(cli, "--target", "onnx", *SMALL)


class TestResult:
    def test_json(self, cli: CommandInto) -> None:
        code, out, err = cli("--target", "onnx", *SMALL, "--format", "json")
        assert code == 0, err
        result: dict[str, Any] = json.loads(out)
        bundle = Bundle.open(result["path"])
        assert bundle.path == cli.out / "edgeface-n-onnx-fp32-64x64"
        assert result["bytes"] == bundle.primary.stat().st_size
        assert result["sha256"] == bundle.manifest.files[result["file"]]
        assert result["parity"] == bundle.manifest.parity
        assert result["operators"]["Conv"] > 10

    def test_table_names_the_next_command(self, cli: CommandInto) -> None:
        code, out, err = cli("--target", "onnx", *SMALL)
        assert code == 0, err
        assert f"edgeface detect photo.jpg --model {cli.out / 'edgeface-n-onnx-fp32-64x64'}" in out
        assert all(head in out for head in ("cls_8", "box_32"))
        assert "converting to onnx ..." in err

    def test_own_weights(self, cli: CommandInto, weights: Path) -> None:
        import hashlib

        code, _, err = cli("--target", "onnx", *SMALL, "--weights", weights)
        assert code == 0, err
        assert "random" not in err
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        found = Bundle.open(cli.out / f"edgeface-n-{digest[:8]}-onnx-fp32-64x64").manifest
        assert found.weights.sha256 == digest and found.architecture.name == "edgeface-n"

    def test_other_weights_are_never_replaced(
        self, cli: CommandInto, weights: Path, tmp_path: Path
    ) -> None:
        """Shipped weights and a user's are never replaced; random ones may be."""
        assert cli("--target", "onnx", *SMALL, "--seed", 1)[0] == 0
        assert cli("--target", "onnx", *SMALL)[0] == 0
        assert cli("--target", "onnx", *SMALL, "--weights", weights)[0] == 0
        bundles = sorted(cli.out.iterdir())
        before = [Bundle.open(path).manifest for path in bundles]
        line = failed(cli("--target", "onnx", *SMALL, "--seed", 1))
        assert "holds other weights (SHA-256" in line and "--out" in line
        assert [Bundle.open(path).manifest for path in bundles] == before and len(before) == 2

    def test_a_weights_file_alone(self, cli: CommandInto, tmp_path: Path) -> None:
        """The Bundle's name holds the network in the file and digits of the file's SHA-256."""
        import hashlib

        from edgeface.zoo import save_weights

        network = random_source("extd-ssd-32-relu", 5).network
        save_weights(network, tmp_path / "mine.safetensors")
        code, _, err = cli("--target", "onnx", *SMALL, "--model", tmp_path / "mine.safetensors")
        assert code == 0 and "random" not in err, err
        digits = hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()[:8]
        model = f"extd-ssd-32-relu-{digits}"
        manifest = Bundle.open(cli.out / f"{model}-onnx-fp32-64x64").manifest
        assert (manifest.model, manifest.architecture) == (model, network.architecture)
        line = fails(
            CommandInto(cli.command, "export", tmp_path / "no"),
            "--target",
            "onnx",
            "--model",
            tmp_path / "mine.safetensors",
            "--seed",
            "1",
        )
        assert "--weights and --seed exclude each other" in line

    def test_random_weights_say_so(self, cli: CommandInto) -> None:
        code, out, err = cli("--target", "onnx", *SMALL, "--model", "scrfd-0.5g")
        assert code == 0, err
        assert "note: scrfd-0.5g gets random weights (seed 0)" in err
        assert "random weights, seed 0, not trained" in out
        manifest = Bundle.open(cli.out / "scrfd-0.5g-onnx-fp32-64x64").manifest
        assert manifest.weights.licence == "none: random weights, seed 0, not trained"

    def test_converters_are_silent_unless_verbose(self, cli: CommandInto) -> None:
        code, out, err = cli("--target", "onnx", *SMALL, "--format", "json")
        assert code == 0
        assert all(
            line.endswith(" ...") or line.startswith("note: ") for line in err.splitlines()
        ), err
        assert out.startswith("{")


def test_rows_of_the_capability_table_resolve() -> None:
    for backend in BACKENDS.values():
        for precision in ("fp32", "fp16"):
            assert callable(backend.load_exporter(precision))


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(11)
    first = load_source("edgeface-n", seed=0)
    torch.manual_seed(12)
    second = load_source("edgeface-n", seed=0)
    assert first.weights == second.weights
    assert load_source("edgeface-n", seed=1).weights.sha256 != first.weights.sha256


class TestQuiet:
    def test_keeps_everything_away(self, capfd: pytest.CaptureFixture[str]) -> None:
        with quiet_stage("x"):
            print("python")
            subprocess.run(["sh", "-c", "echo native; echo native >&2"], check=True)
        print("after")
        assert capfd.readouterr() == ("after\n", "")

    def test_verbose_shows_everything(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ValueError, match="inner"), quiet_stage("x", verbose=True):
            print("python")
            raise ValueError("inner")
        assert capfd.readouterr().out == "python\n"
