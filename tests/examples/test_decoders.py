"""Decoders in other languages against the golden vectors, where their tools are installed.

What a user copies from examples/ needs nothing of the library."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeface import zoo
from edgeface.detector import Detector
from edgeface.images import read_image

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PHOTO = ROOT / "docs" / "photo.jpg"


def run(*command: object, cwd: Path = EXAMPLES, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def needs(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    return found


def test_python() -> None:
    assert "Python: " in run(sys.executable, "python/test.py")


def test_javascript() -> None:
    assert "JavaScript: " in run(needs("node"), "web/test.js")


def test_javascript_in_a_folder_with_a_space(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "vectors", tmp_path / "a copy" / "vectors")
    (tmp_path / "a copy" / "web").mkdir()
    for name in ("decoder.js", "test.js", "package.json"):
        shutil.copy(EXAMPLES / "web" / name, tmp_path / "a copy" / "web")
    assert "JavaScript: " in run(needs("node"), "a copy/web/test.js", cwd=tmp_path)


@pytest.mark.parametrize("options", [("-O1",), ("-O2", "-mfma")], ids=" ".join)
def test_cpp(options: tuple[str, ...], tmp_path: Path) -> None:
    """Also for CPUs that fuse a multiplication and an addition, as all 64-bit ARM CPUs do."""
    cpu = Path("/proc/cpuinfo")
    if "-mfma" in options and not (cpu.is_file() and " fma " in cpu.read_text()):
        pytest.skip("this CPU has no FMA to ask for")
    program = tmp_path / "vectors"
    strict = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
    run(needs("g++"), "-std=c++17", *options, *strict, "cpp/test.cpp", "-o", program)
    assert "C++: " in run(program, "vectors")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_cpp_turns_jpegs_as_the_library_does(
    orientation: int, jpeg_reader: Path, astronaut: Any, tmp_path: Path
) -> None:
    Pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image = Pillow.fromarray(astronaut[:200, 100:420])
    exif = image.getexif()
    exif[0x112] = orientation
    image.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    run(jpeg_reader, tmp_path / "photo.jpg", tmp_path / "photo.ppm")
    found, expected = read_image(tmp_path / "photo.ppm"), read_image(tmp_path / "photo.jpg")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 1  # decoded by two libjpegs


def test_cpp_refuses_a_jpeg_that_is_not_whole(jpeg_reader: Path, tmp_path: Path) -> None:
    Pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    whole = (EXAMPLES.parent / "docs" / "photo.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    Pillow.new("CMYK", (64, 64)).save(tmp_path / "print.jpg")
    for name, reason in (("half", "the JPEG is truncated"), ("print", "Unsupported color conv")):
        words = [jpeg_reader, tmp_path / f"{name}.jpg", tmp_path / "photo.ppm"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 2 and reason in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def jpeg_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``jpeg_reader JPEG PPM``: a program that converts with read_photo of photo.hpp."""
    if not Path("/usr/include/jpeglib.h").is_file():
        pytest.skip("libjpeg's header is not here: apt install libjpeg-dev")
    folder = tmp_path_factory.mktemp("jpeg")
    (folder / "main.cpp").write_text(
        '#include "photo.hpp"\n'
        "int main(int, char** names) try { const Photo p = read_photo(names[1]);"
        ' std::ofstream(names[2], std::ios::binary) << "P6\\n" << p.width << " " << p.height'
        ' << "\\n255\\n" << std::string(p.rgb.begin(), p.rgb.end());'
        ' } catch (const std::exception& e) { return std::fprintf(stderr, "%s\\n", e.what()), 2; }'
    )
    strict = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
    options = ("-std=c++17", "-DHAVE_JPEG", f"-I{EXAMPLES / 'cpp'}", *strict)
    run(needs("g++"), *options, folder / "main.cpp", "-o", folder / "reader", "-ljpeg")
    return folder / "reader"


@pytest.mark.slow
def test_all_that_are_here_and_what_is_missing_is_named() -> None:
    said = run(needs("sh"), "test.sh", PYTHON=sys.executable)
    for language in ("Python", "JavaScript", "C++", "Kotlin", "Swift"):
        assert f"{language}: " in said or "VectorTests" in said


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """The PATH contains no compiler and no interpreter: each language is skipped by name."""
    for tool in ("sh", "dirname", "mktemp", "rm"):
        (tmp_path / tool).symlink_to(needs(tool))
    said = run(tmp_path / "sh", "test.sh", PATH=str(tmp_path), PYTHON="no-python").splitlines()
    assert [line.partition(":")[0] for line in said] == [
        "Python",
        "JavaScript",
        "C++",
        "Kotlin",
        "Swift",
    ]
    assert all("skipped, there is no" in line for line in said)


def test_a_wrong_decoder_is_found_out(tmp_path: Path) -> None:
    """With a decoder that is off by half a cell, the language's test of the vectors fails."""
    for name in ("decoder.js", "test.js", "package.json"):
        text = (EXAMPLES / "web" / name).read_text()
        (tmp_path / name).write_text(text.replace("column + offset", "column"))
    node = needs("node")
    wrong = [node, str(tmp_path / "test.js"), str(EXAMPLES / "vectors")]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "boxes" in done.stderr


@pytest.mark.parametrize("target", [pytest.param("tflite", marks=pytest.mark.slow), "onnx"])
def test_the_python_program(target: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    pytest.importorskip("torch", reason="torch is not installed")
    from export import ExportRequest, export_model, load_source

    request = ExportRequest(target, "fp32", 320, 320)
    bundle = export_model(load_source("edgeface-n"), request, tmp_path).bundle
    photo = cv2.imread(str(PHOTO))
    assert photo is not None and cv2.imwrite(str(tmp_path / "photo.png"), photo)
    said = run(sys.executable, "python/detect.py", bundle.path, tmp_path / "photo.png")
    found = np.array([[float(word) for word in line.split()] for line in said.splitlines()])
    with Detector.open(bundle.path) as detector:
        expected = detector.detect(photo[:, :, ::-1].astype(np.uint8))
    assert len(found) == len(expected) > 0 and expected.landmarks is not None
    np.testing.assert_allclose(found[:, 0], expected.scores, atol=1e-3)
    np.testing.assert_allclose(found[:, 1:5], expected.boxes, atol=0.05)
    np.testing.assert_allclose(found[:, 5:].reshape(-1, 5, 2), expected.landmarks, atol=0.05)


@pytest.mark.parametrize("kind", ["grey of 16 bits", "colour", "transparent", "palette"])
def test_the_python_program_reads_what_the_library_reads(
    kind: str, astronaut: Any, tmp_path: Path
) -> None:
    Pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    path = tmp_path / "photo.png"
    if kind == "grey of 16 bits":
        values = astronaut[..., 0].astype(np.uint16) << 8
        values[:256] += 255
        assert cv2.imwrite(str(path), values)
    else:
        image = Pillow.fromarray(astronaut)
        if kind == "transparent":
            image.putalpha(Pillow.fromarray(astronaut[..., 1]))
        options = {"transparency": 3} if kind == "palette" else {}
        image = image.quantize(64) if kind == "palette" else image
        image.save(path, **options)
    program = (
        "import sys; sys.path.insert(0, 'python'); import detect, numpy;"
        "numpy.save(sys.argv[1], detect.read(sys.argv[2]))"
    )
    run(sys.executable, "-c", program, tmp_path / "read.npy", path)
    read, expected = np.load(tmp_path / "read.npy"), read_image(path)
    assert read.dtype == np.uint8 and read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).max() <= (kind == "transparent")


def test_the_page_lays_a_photo_over_white(tmp_path: Path) -> None:
    """Transparent pixels are white, neither black nor those of the previous photo."""
    for name in ("app.js", "decoder.js", "package.json"):
        shutil.copy(EXAMPLES / "web" / name, tmp_path)
    (tmp_path / "runtimes.js").write_text(
        "export const open = async () => ({name: 'none', close() {}, async run(tensor) {"
        "tensors.push(tensor); throw new Error('kept'); }});"
    )
    manifest = zoo.BUNDLES / "edgeface-n-onnx-fp32-640x480-dynamic" / "manifest.json"
    found = json.loads(
        run(needs("node"), Path(__file__).with_name("canvas.mjs"), tmp_path, manifest)
    )
    source = json.loads(manifest.read_text())["contract"]["input"]
    levels = [level / source["scale"] + source["zero_point"] for level in (0, 255)]
    np.testing.assert_allclose(found, [[level, level] for level in levels], atol=1e-5)


def test_the_page_draws_the_faces_of_a_photo_on_it(tmp_path: Path) -> None:
    """Faces are not drawn on the next photo if that is chosen before they are found, and a model
    that cannot be opened is not named as the one that finds them."""
    for name in ("app.js", "decoder.js", "package.json"):
        shutil.copy(EXAMPLES / "web" / name, tmp_path)
    (tmp_path / "runtimes.js").write_text(
        "export const open = async ({contract}) => ({name: 'slow', close() {},"
        "async run(tensor, {canvasWidth: width, canvasHeight: height}) {"
        "await new Promise((go) => setTimeout(go, 50));"
        "return contract.outputs.map(({kind, stride, shape}) => {"
        "const made = new Float32Array(shape[1] * Math.ceil(width / stride) *"
        "Math.ceil(height / stride)).fill(kind === 'cls' ? -9 : 1);"
        "if (kind === 'cls' && stride === 8) made[0] = 9; return made; }); }});"
    )
    manifest = zoo.BUNDLES / "edgeface-n-onnx-fp32-640x480-dynamic" / "manifest.json"
    drawn = json.loads(
        run(needs("node"), Path(__file__).with_name("turns.mjs"), tmp_path, manifest)
    )
    assert drawn == ["first", "box", "second", "box", "one"]


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ((), "models.json is not on the server (404)"),
        (('["one"]',), "models/one/manifest.json is not on the server (404)"),
        (('["a #2"]',), "models/a%20%232/manifest.json is not on the server (404)"),
        (("[]",), "models.json names no folder of a model"),
    ],
)
def test_the_page_says_what_its_server_lacks(
    models: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    for name in ("app.js", "decoder.js", "runtimes.js", "package.json"):
        shutil.copy(EXAMPLES / "web" / name, tmp_path)
    script = Path(__file__).with_name("missing.mjs")
    assert run(needs("node"), script, tmp_path, *models) == f"error: {said}\n"


def test_the_apps_take_the_file_that_the_manifest_names() -> None:
    """The apps' code names no file: that of a fine-tuned network has its SHA-256 in its name."""
    apps = [*EXAMPLES.rglob("app/**/*.kt"), *EXAMPLES.rglob("App/*.swift")]
    assert len(apps) == 4
    assert not [path for path in apps if "edgeface-n" in path.read_text()]


def test_the_android_project_says_that_it_is_of_androidx() -> None:
    """Without this property, Gradle refuses the dependencies: checkDebugAarMetadata fails."""
    android = EXAMPLES / "android"
    assert "androidx." in (android / "app" / "build.gradle.kts").read_text()
    assert "android.useAndroidX=true" in (android / "gradle.properties").read_text().splitlines()


@pytest.mark.parametrize(
    ("bundle", "photo", "words"),
    [
        ("nowhere", PHOTO, "manifest.json"),
        (zoo.BUNDLES / "edgeface-n-ncnn-int8-640x480", PHOTO, "is for ncnn: name one for tflite"),
        (
            zoo.BUNDLES / "edgeface-n-onnx-fp32-640x480-dynamic",
            EXAMPLES / "test.sh",
            "cannot ident",
        ),
        ("damaged", PHOTO, "line 1 column 1"),
        ("without a contract", PHOTO, "'contract'"),
        ("of a file that is damaged", PHOTO, "Protobuf parsing failed"),
        ("of another kind", PHOTO, "list indices"),
    ],
)
def test_what_the_python_program_cannot_do_is_one_line(
    bundle: Path | str, photo: Path, words: str, tmp_path: Path
) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    whole = zoo.BUNDLES / "edgeface-n-onnx-fp32-640x480-dynamic" / "manifest.json"
    manifests = {
        "damaged": "no JSON",
        "without a contract": '{"target": "onnx"}',
        "of a file that is damaged": whole.read_text(),
        "of another kind": "[1]",
    }
    if bundle in manifests:
        (tmp_path / "edgeface-n.onnx").write_text("no model")
        (tmp_path / "manifest.json").write_text(manifests[str(bundle)])
        bundle = tmp_path
    command = [sys.executable, str(EXAMPLES / "python" / "detect.py"), str(bundle), str(photo)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and words in done.stderr


def test_what_is_copied_imports_nothing_of_the_library() -> None:
    """Except the Pi's camera loop, which runs with the installed wheel."""
    for path in set(EXAMPLES.rglob("*.py")) - {EXAMPLES / "raspberry-pi" / "camera.py"}:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            ours = ("edgeface", "export", "quantize", "benchmarks", "tests")
            assert not any(name.partition(".")[0] in ours for name in names), path


def test_nothing_large_or_foreign_lies_there() -> None:
    """Files tracked by git are below 300 kB, and none is a weights file, a library or a package."""
    listed = run(needs("git"), "ls-files", "-z", "--", "examples", cwd=ROOT).split("\0")
    paths = [ROOT / name for name in listed if name]
    suffixes = {".tflite", ".onnx", ".bin", ".so", ".aar", ".jar", ".wasm", ".npy"}
    assert [p for p in paths if p.suffix in suffixes or "node_modules" in p.parts] == []
    assert all(path.stat().st_size < 300_000 for path in paths if path.is_file())
