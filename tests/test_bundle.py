"""A Bundle is accepted only after everything in its manifest has been checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from manifests import a_manifest
from networks import with_part

from edgeface.architecture import get_architecture
from edgeface.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    Bundle,
    InputSpec,
    Manifest,
    write_bundle,
)
from edgeface.decode import head_layout
from edgeface.errors import BundleError, EdgefaceError, OutputError
from edgeface.runners import open_runner


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(
        tmp_path / a_manifest().folder_name, a_manifest(), {"model.onnx": b"weights", "notes": b"n"}
    )


def rewrite(bundle: Bundle, change: Any) -> Path:
    """Apply ``change`` to the parsed manifest on disk."""
    path = bundle.path / MANIFEST
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return bundle.path


def refused(path: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)


def test_round_trip(bundle: Bundle) -> None:
    opened = Bundle.open(bundle.path)
    assert opened == bundle
    assert Manifest.from_json(json.loads(opened.manifest.dumps())) == opened.manifest
    assert dataclasses.replace(opened.manifest, files={}) == a_manifest()
    assert opened.read() == b"weights" and opened.read("notes") == b"n"
    assert opened.primary == bundle.path / "model.onnx"
    assert opened.manifest.files["notes"] == hashlib.sha256(b"n").hexdigest()


def test_a_manifest_without_landmarks_is_what_it_was() -> None:
    """The digest is that of the text from before landmarks existed; edgeface-n had none then."""
    network = get_architecture("edgeface-n")
    boxes = with_part(network, "head", landmarks=0)
    layout = head_layout(boxes)
    outputs = {name: name for name in layout.output_names}
    manifest = a_manifest(architecture=boxes, head_layout=layout, outputs=outputs, format_version=1)
    digest = hashlib.sha256(manifest.dumps().encode()).hexdigest()
    assert digest == "779b9a724d1880b4b6c1d70f9c0688e77e93ce9d7e39c3d88700cb875168059b"


def with_landmarks(**changes: Any) -> Manifest:
    """Manifest of an INT8 file with landmarks."""
    network = get_architecture("damofd-0.5g-kps-bn")
    layout = head_layout(network)
    outputs = {name: name for name in layout.output_names}
    return a_manifest(
        architecture=network,
        head_layout=layout,
        outputs=outputs,
        target="tflite",
        precision="int8",
        output_quantization=dict.fromkeys(outputs, (0.5, -3.0)),
        **changes,
    )


def test_round_trip_with_landmarks(tmp_path: Path) -> None:
    manifest = with_landmarks()
    written = write_bundle(tmp_path / "b", manifest, {"model.onnx": b"w"}).manifest
    assert dataclasses.replace(written, files={}) == manifest
    assert written.head_layout.landmarks == 5
    assert written.architecture == manifest.architecture
    assert set(written.outputs) == {
        f"{kind}_{stride}" for stride in (8, 16, 32) for kind in ("cls", "box", "kps")
    }


@pytest.mark.parametrize("field", ["outputs", "output_quantization"])
def test_every_landmark_output_is_named(tmp_path: Path, field: str) -> None:
    bundle = write_bundle(tmp_path / "b", with_landmarks(), {"model.onnx": b"w"})
    refused(rewrite(bundle, lambda data: data[field].pop("kps_16")), "kps_16|of every output")


def test_landmarks_are_none_or_five(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", with_landmarks(), {"model.onnx": b"w"})
    path = rewrite(bundle, lambda data: data["head_layout"].update(landmarks=4))
    refused(path, "landmarks must be 0 or 5")


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    texts = [
        (
            write_bundle(tmp_path / name, a_manifest(), {"model.onnx": b"w"}).path / MANIFEST
        ).read_bytes()
        for name in ("a", "b")
    ]
    assert texts[0] == texts[1] and str(tmp_path).encode() not in texts[0]


def test_folder_name() -> None:
    assert a_manifest().folder_name == "edgeface-n-onnx-fp32-640x480"
    assert (
        a_manifest(input=InputSpec(320, 256, dynamic=True)).folder_name
        == "edgeface-n-onnx-fp32-320x256-dynamic"
    )


def test_files_may_be_given_as_paths(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"from a file")
    assert (
        write_bundle(tmp_path / "b", a_manifest(), {"model.onnx": tmp_path / "source"}).read()
        == b"from a file"
    )


def test_writing_replaces_a_bundle_and_nothing_else(tmp_path: Path, bundle: Bundle) -> None:
    assert write_bundle(bundle.path, a_manifest(), {"model.onnx": b"new"}).read() == b"new"
    assert sorted(p.name for p in bundle.path.iterdir()) == [MANIFEST, "model.onnx"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(BundleError, match="not a Bundle"):
        write_bundle(tmp_path / "photos", a_manifest(), {"model.onnx": b"new"})
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_files_of_the_users_are_not_replaced(bundle: Bundle) -> None:
    """Bundles of other weights are kept too, of any version; .DS_Store does not prevent a write."""
    (bundle.path / ".DS_Store").write_bytes(b"")
    write_bundle(bundle.path, a_manifest(), {"model.onnx": b"new"})
    (bundle.path / "faces").mkdir()
    with pytest.raises(BundleError, match="holds 'faces', which is not of the Bundle"):
        write_bundle(bundle.path, a_manifest(), {"model.onnx": b"newer"})
    (bundle.path / "faces").rmdir()
    path = rewrite(bundle, lambda data: data.update(format_version=99))
    write_bundle(bundle.path, a_manifest(), {"model.onnx": b"new"})
    rewrite(bundle, lambda data: data.update(format_version=99))
    rewrite(bundle, lambda data: data["weights"].update(sha256="1" * 64))
    before = path.read_bytes() if path.is_file() else (bundle.path / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match="holds other weights"):
        write_bundle(bundle.path, a_manifest(), {"model.onnx": b"newer"})
    assert (bundle.path / MANIFEST).read_bytes() == before
    for text in ("{", "", '{"format_version": 2}', '{"format_version": 2, "files": {}}'):
        (bundle.path / MANIFEST).write_text(text)
        assert write_bundle(bundle.path, a_manifest(), {"model.onnx": b"new"}).read() == b"new"
        (bundle.path / MANIFEST).write_text(text)
        (bundle.path / "notes.txt").write_text("mine")
        with pytest.raises(BundleError, match=r"holds 'notes\.txt'"):
            write_bundle(bundle.path, a_manifest(), {"model.onnx": b"newer"})
        (bundle.path / "notes.txt").unlink()
    (bundle.path / "model.onnx").unlink()
    for text in ('{"name": "a web app"}', '[{"id": 1}]', '{"version": "' + "1" * (5 << 20) + '"}'):
        (bundle.path / MANIFEST).write_text(text)
        with pytest.raises(BundleError, match="not a Bundle"):
            write_bundle(bundle.path, a_manifest(), {"model.onnx": b"newer"})
        assert (bundle.path / MANIFEST).read_text() == text
    (bundle.path / MANIFEST).write_text('{"format_version": 2, "files": {"photos": ""}}')
    (bundle.path / "photos").mkdir()
    with pytest.raises(BundleError, match="holds 'photos', which is not of the Bundle"):
        write_bundle(bundle.path, a_manifest(), {"model.onnx": b"newer"})


def test_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="primary file"):
        write_bundle(tmp_path / "b", a_manifest(), {"other.onnx": b"w"})
    with pytest.raises(BundleError, match="outside its folder"):
        write_bundle(tmp_path / "b", a_manifest(), {"model.onnx": b"w", "../evil": b"w"})
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        write_bundle(tmp_path / "file" / "b", a_manifest(), {"model.onnx": b"w"})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_no_bundle_there(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no Bundle at .*make one with")
    refused(tmp_path, "has no manifest.json")
    (tmp_path / "model.onnx").write_bytes(b"")
    refused(tmp_path / "model.onnx", "no Bundle at")
    refused(Path("x" * 5000), "cannot read|no Bundle")
    refused(Path("a\0b"), "no Bundle")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "not json",
        "[1]",
        "null",
        "3",
        '{"a": NaN}',
        "\ufeff{}",
        "[" * 100000,
        '{"format_version": 1' + "0" * 9999 + "}",
    ],
)
def test_manifest_that_is_not_one(bundle: Bundle, text: str) -> None:
    (bundle.path / MANIFEST).write_text(text, encoding="utf-8")
    refused(bundle.path, "not valid JSON|expected an object|format_version")


def test_manifest_in_another_encoding(bundle: Bundle) -> None:
    (bundle.path / MANIFEST).write_bytes(b"\xff\xfe{\0}\0")
    refused(bundle.path, "not valid JSON")


def test_endless_manifest(bundle: Bundle) -> None:
    with (bundle.path / MANIFEST).open("wb") as file:
        file.truncate(1 << 30)
    refused(bundle.path, "larger than 4 MiB")


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", None, True, 1.0])
def test_unknown_format_version(bundle: Bundle, version: Any) -> None:
    refused(
        rewrite(bundle, lambda d: d.update(format_version=version)),
        "format_version .*export the model again",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("primary"), "field 'primary' is missing"),
        (lambda d: d.update(colour="red"), "unknown field 'colour'"),
        (lambda d: d.update(model=5), "manifest.model: expected a string"),
        (lambda d: d.update(model="../x"), "not a plain name"),
        (lambda d: d.update(target="coreml"), "unknown target 'coreml'"),
        (lambda d: d.update(precision="fp8"), "unknown precision"),
        (lambda d: d.update(files=[]), "manifest.files: expected an object"),
        (lambda d: d["files"].update({"model.onnx": 1}), "expected a string"),
        (lambda d: d["files"].update({"model.onnx": "ab"}), "64 lower-case"),
        (lambda d: d["input"].update(width="640"), "manifest.input.width: expected an integer"),
        (lambda d: d["input"].update(width=True), "expected an integer"),
        (lambda d: d["input"].update(width=-32), "width and height must be"),
        (lambda d: d["input"].update(dynamic=1), "expected true or false"),
        (lambda d: d["input"].update(layout="CHWN"), "layout must be"),
        (lambda d: d["input"].update(range=[0, 1]), "range must be"),
        (lambda d: d["input"].update(range=[0, 1e999]), "not valid JSON|expected a number"),
        (lambda d: d["head_layout"].update(strides=[8, "16"]), "expected an integer"),
        (lambda d: d["head_layout"].update(anchors=0), "anchors must be"),
        (lambda d: d["head_layout"].update(strides=[8]), "outputs must name exactly cls_8, box_8"),
        (lambda d: d["outputs"].pop("cls_8"), "outputs must name exactly"),
        (lambda d: d["architecture"]["backbone"].update(widths=[32, None]), "expected an integer"),
        (lambda d: d["architecture"].pop("neck"), "field 'neck' is missing"),
        (lambda d: d.update(parity=[]), "manifest.parity: expected an object"),
        (lambda d: d.update(primary="other"), "primary file 'other' is not one of its files"),
        (lambda d: d.update(weights={}), "field 'sha256' is missing"),
    ],
)
def test_fields_that_are_wrong(bundle: Bundle, change: Any, message: str) -> None:
    refused(rewrite(bundle, change), message)


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "..", "a/b", "a\\b", "C:model.onnx", "..\\x", "./x"]
)
def test_file_outside_the_folder(bundle: Bundle, name: str) -> None:
    refused(
        rewrite(bundle, lambda d: d.update(files={name: d["files"]["model.onnx"]}, primary=name)),
        "manifest names a file outside its folder",
    )


@pytest.mark.parametrize(
    "name", ["", "a b", "a\nb", "\ud800", "x" * 200, ".hidden", MANIFEST, "-rf", "a\0"]
)
def test_file_names_that_are_not_plain(bundle: Bundle, name: str) -> None:
    refused(rewrite(bundle, lambda d: d["files"].update({name: "0" * 64})), "not a plain file name")


def test_link_out_of_the_folder(tmp_path: Path, bundle: Bundle) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"weights")
    (bundle.path / "model.onnx").unlink()
    (bundle.path / "model.onnx").symlink_to(outside)
    refused(bundle.path, "manifest names a file outside its folder")


def test_link_loop_folder_and_pipe(bundle: Bundle) -> None:
    model = bundle.path / "model.onnx"
    model.unlink()
    model.symlink_to("model.onnx")
    refused(bundle.path, "cannot read|missing|outside")
    model.unlink()
    model.mkdir()
    refused(bundle.path, "is missing")
    model.rmdir()
    os.mkfifo(model)
    refused(bundle.path, "is missing")


@pytest.mark.parametrize("content", [b"", b"weight", b"Weights", b"weights "])
def test_truncated_or_altered_file(bundle: Bundle, content: bytes) -> None:
    (bundle.path / "model.onnx").write_bytes(content)
    refused(bundle.path, "truncated or altered")
    unverified = Bundle.open(bundle.path, verify=False)
    with pytest.raises(BundleError, match="truncated or altered"):
        unverified.read()
    with pytest.raises(BundleError, match="truncated or altered"):
        open_runner(unverified)


def test_missing_file(bundle: Bundle) -> None:
    (bundle.path / "notes").unlink()
    refused(bundle.path, "file 'notes' is missing")
    with pytest.raises(BundleError, match="lists no file 'passwd'"):
        bundle.file("passwd")


def test_bytes_that_are_no_model(bundle: Bundle) -> None:
    with pytest.raises(EdgefaceError) as caught:
        open_runner(bundle)
    assert "\n" not in str(caught.value) and "cannot be loaded" in str(caught.value)
