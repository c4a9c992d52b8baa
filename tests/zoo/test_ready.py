"""Ready files are made of the shipped weights, run without torch, and find what torch finds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from commands import Command, failed
from flat_tables import buffers_behind
from test_light_import import BLOCKER, HEAVY, ROOT
from venvs import build_wheel, make_venv

from benchmarks import ready as command
from benchmarks.ready import Options, kinds_of, make_ready
from edgeface import zoo
from edgeface.backends import BACKENDS, get_backend
from edgeface.bundle import MANIFEST, README, Bundle, json_schema, write_bundle
from edgeface.bundle.readme import readme
from edgeface.cli.terminal import Terminal
from edgeface.detector import Detector
from edgeface.errors import ModelError
from edgeface.runners.torch import TorchRunner
from edgeface.zoo import ready

PHOTO = ROOT / "docs" / "photo.jpg"
FILES = zoo.read_ready()
FLOATS = [file for file in FILES if file.precision == "fp32"]
MOST_BYTES = 10_000_000
"""limit for all ready files together; the wheel contains weights as well"""
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


@pytest.fixture
def fresh() -> Any:
    """Read the shipped index again for this test, and again after it."""
    ready._shipped.cache_clear()
    yield
    ready._shipped.cache_clear()


class TestWhatShips:
    def test_the_index_is_of_the_weights_and_of_the_files(self) -> None:
        """If the weights changed, run python -m benchmarks.ready --data WIDER."""
        folders = {path.name for path in zoo.BUNDLES.iterdir() if path.is_dir()}
        assert {file.name for file in FILES} == folders
        assert {
            (f.model, f.target, f.precision, (f.width, f.height), f.dynamic) for f in FILES
        } == {(model, *kind) for model in zoo.names() for kind in kinds_of(model)}
        for file in FILES:
            assert file.weights == zoo.get_entry(file.model).sha256, "made of other weights"

    def test_tflite_weights_are_where_older_runtimes_look(self) -> None:
        pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
        files = [file for file in FILES if file.target == "tflite"]
        assert files and not any(buffers_behind(Bundle.open(f.path).read()) for f in files)
        assert set(ready.ready_files()) == set(FILES)

    @each_file
    def test_every_byte(self, file: zoo.ReadyFile) -> None:
        bundle = Bundle.open(file.path)
        text = (file.path / MANIFEST).read_bytes()
        assert hashlib.sha256(text).hexdigest() == file.manifest
        assert zoo.ready_file(bundle, file.manifest) == file
        assert bundle.manifest.folder_name == file.name and bundle.manifest.contract is not None
        assert (file.path / README).read_text() == readme(bundle.manifest)
        jsonschema.validate(json.loads(text), json.loads(json_schema.PATH.read_text()))
        if file.precision == "int8":
            accuracy = bundle.manifest.accuracy
            assert accuracy is not None and accuracy["images"] > 0 and accuracy["max_drop"] <= 0.5

    def test_a_few_megabytes_in_the_wheel(self) -> None:
        found = [path for path in zoo.BUNDLES.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in found) <= MOST_BYTES
        packaged = (ROOT / "pyproject.toml").read_text()
        assert '"zoo/bundles/*.json", "zoo/bundles/*/*"' in packaged
        assert all(len(path.relative_to(zoo.BUNDLES).parts) <= 2 for path in found)

    @pytest.mark.parametrize("file", FLOATS, ids=lambda file: file.name)
    def test_float_files_find_what_torch_finds(self, file: zoo.ReadyFile, astronaut: Any) -> None:
        pytest.importorskip("torch", reason="torch is not installed")
        image = astronaut
        if not file.dynamic:  # a photo that both see unscaled
            image = np.zeros((file.height, file.width, 3), np.uint8)
            part = astronaut[: file.height, : file.width]
            image[: part.shape[0], : part.shape[1]] = part
        with (
            Detector(TorchRunner.open(file.model), 0.3) as torch,
            Detector.open(file.name, score_threshold=0.3) as ours,
        ):
            expected, found = torch.detect(image), ours.detect(image)
        assert len(found) == len(expected) > 0
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        assert found.landmarks is not None and expected.landmarks is not None
        np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=0.01)

    @each_file
    def test_the_face_of_a_photo(self, file: zoo.ReadyFile, astronaut: Any) -> None:
        with Detector.open(file.name) as detector:
            faces = detector.detect(astronaut)
        assert len(faces) == 1 and np.abs(faces.boxes[0] - (178, 62, 270, 180)).max() < 12


class TestByName:
    @pytest.mark.parametrize("target", list(BACKENDS))
    def test_with_one_runtime_and_no_torch(self, target: str) -> None:
        """As on a device: the command finds a face, and prints the file and the size used."""
        others = {p for t in BACKENDS if t != target for p in get_backend(t).packages}
        blocked = tuple(sorted({*HEAVY, *others} - {"typer", "rich"}))
        code = BLOCKER.replace(repr(HEAVY), repr(blocked))
        code += "from edgeface.cli import main\nsys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "detect", str(PHOTO), "--format", "json"]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)[0]["faces"]) == 1
        best = next(file for file in FILES if file.target == target)
        size = "long side 640 px" if best.dynamic else f"input {best.width}x{best.height} px"
        assert f"edgeface-n: {best.name}, " in done.stderr and size in done.stderr

    def test_a_folder_of_that_name_is_not_taken_for_the_ready_file(
        self, edgeface: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The folder runs, so a note on the ready file would be about another file."""
        (tmp_path / "edgeface-n").symlink_to(FILES[-1].path)
        monkeypatch.chdir(tmp_path)
        code, _, err = edgeface("detect", PHOTO)
        assert code == 0 and "edgeface-n:" not in err

    def test_by_name_and_by_bundle_the_same(self, astronaut: Any) -> None:
        best = zoo.find_ready("edgeface-n")
        assert best is not None and best.precision == "fp32"
        with Detector.open("edgeface-n") as named, Detector.open(best.path) as bundle:
            a, b = named.detect(astronaut), bundle.detect(astronaut)
        assert np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)

    def test_float_before_int8_and_torch_between(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An INT8 file is used only if neither a runtime for float files nor torch is installed."""
        order = [file.precision for file in FILES]
        assert order == sorted(order) and FILES[0].dynamic
        only = {"ncnn"}
        monkeypatch.setattr(ready.ReadyFile, "runs_here", property(lambda f: f.target in only))
        assert zoo.find_ready("edgeface-n") is None, "torch is installed"
        monkeypatch.setattr(ready, "has_module", lambda name: False)
        found = zoo.find_ready("edgeface-n")
        assert found is not None and (found.target, found.size) == ("ncnn", "640x480")

    def test_without_any_runtime(self, edgeface: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edgeface.backends.has_module", lambda name: False)
        monkeypatch.setattr("edgeface.detector.has_module", lambda name: False)
        monkeypatch.setattr(ready, "has_module", lambda name: False)
        line = failed(edgeface("detect", PHOTO))
        targets = ", ".join(dict.fromkeys(file.target for file in FILES))
        assert f"ready for {targets}: any one of them will do" in line
        assert "pip install 'edgeface[onnx]'" in line

    def test_a_size_that_only_torch_or_a_file_of_any_size_has(
        self, edgeface: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ready.ReadyFile, "runs_here", property(lambda f: f.target == "tflite"))
        monkeypatch.setattr("edgeface.detector.has_module", lambda name: False)
        line = failed(edgeface("detect", PHOTO, "--size", "800"))
        assert "cannot run at size 800 here" in line and "640x480, " in line
        assert line.count("640x480") == 1 and "pip install 'edgeface[onnx]', whose file" in line
        assert edgeface("detect", PHOTO, "--size", "640")[0] == 0

    def test_what_to_install_takes_the_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [file.target for file in zoo.ready_files("edgeface-s")] == ["tflite"]
        here = ["tflite"]
        monkeypatch.setattr(ready.ReadyFile, "runs_here", property(lambda f: f.target in here))
        assert "pip install 'edgeface[zoo]', since" in str(zoo.cannot_run("edgeface-s", 800))
        here.clear()
        assert "pip install 'edgeface[zoo]'" in str(zoo.cannot_run("edgeface-s", 800))
        assert "(ready for onnx: any one" in str(zoo.cannot_run("edgeface-n", 800))
        assert "(ready for onnx, tflite, " in str(zoo.cannot_run("edgeface-n", 640))

    def test_files_of_other_weights_are_not_used(
        self, monkeypatch: pytest.MonkeyPatch, fresh: None
    ) -> None:
        entry = replace(zoo.get_entry("edgeface-n"), sha256="0" * 64)
        monkeypatch.setattr(ready, "get_entry", lambda name: entry)
        assert ready.ready_files() == () and zoo.find_ready("edgeface-n") is None

    def test_a_damaged_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "index.json"
        path.write_text('[{"name": 3}]')
        with pytest.raises(ModelError, match=r"index\.json: 0"):
            ready.read_ready(path)
        assert ready.read_ready(tmp_path / "none.json") == ()


class TestCommands:
    def test_models_and_doctor_say_what_runs_here(
        self, edgeface: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ready.ReadyFile, "runs_here", property(lambda f: f.target != "ncnn"))
        code, out, _ = edgeface("models", "--format", "json")
        rows = {row["name"]: row["ready"] for row in json.loads(out)}
        assert code == 0 and rows["edgeface-n"]
        for model in zoo.names():
            assert [r["name"] for r in rows[model]] == [f.name for f in FILES if f.model == model]
        assert rows["scrfd-0.5g"] == []
        assert {r["fix"] for r in rows["edgeface-n"]} == {None, "pip install 'edgeface[ncnn]'"}
        code, out, _ = edgeface("models")
        assert code == 0 and all(file.name in out for file in FILES)
        code, out, _ = edgeface("doctor")
        here = out.split("ready files that run here: ")[1].splitlines()
        assert code == 0 and FILES[0].name in here[0] and "ncnn" not in here[0]
        assert "ncnn" in here[1] and here[1].endswith("pip install 'edgeface[ncnn]'")

    def test_the_command_that_makes_them(self, tmp_path: Path) -> None:
        """Only missing files are made, with the bytes that ship; the index lists all there are."""
        pytest.importorskip("torch", reason="torch is not installed")
        shelf = tmp_path / "bundles"
        shutil.copytree(FILES[-1].path, shelf / FILES[-1].name)
        options = Options(data=tmp_path, targets=("onnx",), out=shelf, work=tmp_path / "work")
        with Terminal(shown=False) as terminal:
            rows = make_ready(options, terminal)
            first = FILES[0]
            made = shelf / first.name
            before = made.stat().st_mtime_ns
            assert [row.name for row in rows] == sorted([first.name, FILES[-1].name])
            assert make_ready(options, terminal) == rows and made.stat().st_mtime_ns == before
        for name in Bundle.open(made).manifest.files:
            assert (made / name).read_bytes() == (first.path / name).read_bytes()

    def test_what_is_of_other_weights_goes_away_at_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only files that the index lists are removed.

        They stay listed until then, as a run may be stopped."""
        old, kept = of_other_weights(tmp_path), tmp_path / FILES[0].name
        options = Options(data=tmp_path, targets=("onnx",), out=tmp_path)
        shutil.copytree(FILES[0].path, kept)
        digest = hashlib.sha256((old / MANIFEST).read_bytes()).hexdigest()
        row = replace(FILES[-1], manifest=digest, weights="0" * 64)
        (tmp_path / "index.json").write_text(json.dumps([asdict(row)]))
        with monkeypatch.context() as patch, Terminal(shown=False) as terminal:
            patch.setattr(command, "remove_others", lambda folder: [])
            assert make_ready(options, terminal) == []
        assert set(zoo.read_ready(tmp_path / "index.json")) == {row, FILES[0]} and old.is_dir()
        with Terminal(shown=False) as terminal:
            assert make_ready(options, terminal) == [FILES[0]]
        assert {path.name for path in tmp_path.iterdir()} == {"index.json", kept.name}
        assert zoo.read_ready(tmp_path / "index.json") == (FILES[0],)

    def test_a_file_of_other_weights_is_made_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = of_other_weights(tmp_path, FILES[0])
        digest = hashlib.sha256((old / MANIFEST).read_bytes()).hexdigest()
        row = replace(FILES[0], manifest=digest, weights="0" * 64)
        (tmp_path / "index.json").write_text(json.dumps([asdict(row)]))
        monkeypatch.setattr(command, "_float", lambda *arguments: Bundle.open(FILES[0].path))
        options = Options(data=tmp_path, targets=("onnx",), out=tmp_path)
        with Terminal(shown=False) as terminal:
            assert make_ready(options, terminal) == [FILES[0]]
        assert Bundle.open(old).manifest == Bundle.open(FILES[0].path).manifest

    @pytest.mark.parametrize("content", ["a Bundle", "a listed name", "a folder"])
    def test_folders_of_a_user_are_refused_and_stay(
        self, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also if the index lists a file of that name: it is a different one."""
        if content == "a folder":
            shutil.copytree(FILES[-1].path, tmp_path / "mine" / FILES[-1].name)
        else:
            of_other_weights(tmp_path)
        if content == "a listed name":
            (tmp_path / "index.json").write_text(json.dumps([asdict(FILES[-1])]))
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert command.main(["--data", str(tmp_path), "--out", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert "was not made by this command" in error
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def of_other_weights(folder: Path, file: zoo.ReadyFile = FILES[-1]) -> Path:
    """Write a Bundle like ``file`` whose manifest names other weights."""
    bundle = Bundle.open(file.path)
    weights = replace(bundle.manifest.weights, sha256="0" * 64)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    manifest = replace(bundle.manifest, weights=weights)
    return write_bundle(folder / file.name, manifest, files).path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "packages"),
    [
        ("cli", ("ai-edge-litert",)),
        ("cli", ("tflite-runtime==2.14.0", "numpy==1.26.4", "opencv-python-headless<4.12")),
        ("cli", ("ncnn",)),
    ],
    ids=["litert", "tflite-runtime-2.14", "ncnn"],
)
def test_the_wheel_on_a_bare_machine(
    extra: str, packages: tuple[str, ...], wheel: Path, tmp_path: Path
) -> None:
    """The runtimes that devices have, also with old NumPy; without torch and the repository."""
    assert wheel.stat().st_size <= 12_000_000
    python = make_venv(tmp_path / "venv", f"{wheel}[{extra}]", *packages)
    command = [str(python.with_name("edgeface")), "detect", str(PHOTO), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    faces = json.loads(done.stdout)[0]["faces"]
    assert len(faces) == 1
    if "ncnn" not in packages:
        with Detector.open("edgeface-n-tflite-fp32-640x480") as detector:
            expected = detector.detect(PHOTO)
        np.testing.assert_allclose(faces[0]["box"], expected.boxes[0], atol=0.01)
