"""The command line as users see it: JSON that other programs rely on, help that explains, errors in
one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from commands import Command, failed, said
from PIL import Image

from edgeface import cli
from edgeface.backends import CHECKOUT_VERBS, OPENCV
from edgeface.cli.app import VERBS
from edgeface.cli.doctor import diagnose
from edgeface.cli.flags import parameters_of
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.images import read_image
from edgeface.images.drawing import DOT_COLOURS
from edgeface.latency.protocol import Protocol
from edgeface.options import field_help
from edgeface.search.autofem.options import AutoFEMOptions
from edgeface.search.options import StudyOptions
from edgeface.training.options import TrainOptions

if TYPE_CHECKING:
    from edgeface.bundle import Bundle


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches(verb: str, edgeface: Command) -> None:
    code, out, _ = edgeface(*verb.split(), "--help")
    assert code == 0 and VERBS[verb].summary in " ".join(out.split())
    assert "--format" in out or verb in ("train", "demo")
    assert f"edgeface {verb}" in out.partition("Examples:")[2]
    options = re.split(r"\n  (?=--)", out.partition("Options:")[2].partition("\n\n")[0])[1:]
    texts = {option.split()[0]: " ".join(option.split("  ", 1)[-1].split()) for option in options}
    assert len(texts) >= 2 and all(len(text) > 5 for text in texts.values()), texts
    fields = {name[2:].replace("-", "_") for name in texts if "-" in name[2:]}
    assert not fields & set(re.findall(r"\w+", " ".join(texts.values()))), "as --names"


def test_help_lists_every_verb_with_a_whole_sentence(edgeface: Command) -> None:
    code, out, _ = edgeface("--help")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    for name, verb in VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(verb.summary)}$", out, re.MULTILINE), name
        assert (
            verb.summary[0].isupper() and verb.summary.endswith(".") and f"\n{verb.task}:\n" in out
        )


def test_every_module_of_a_verb_is_listed() -> None:
    helpers = {"app", "failures", "flags", "looking", "output", "program", "rows", "terminal"}
    helpers |= {"search published"}  # part of the verb "search"
    modules = {
        path.stem.replace("_", " ") for path in Path(cli.__file__).parent.glob("[!_]*.py")
    } - helpers
    assert modules == set(VERBS) - set(CHECKOUT_VERBS)


@pytest.mark.parametrize(
    ("verb", "cls"),
    [
        ("train", TrainOptions),
        ("search", StudyOptions),
        ("autofem", AutoFEMOptions),
        ("bench", Protocol),
    ],
)
def test_help_of_a_dataclass_comes_from_its_fields(verb: str, cls: type, edgeface: Command) -> None:
    output = "".join(edgeface(verb, "--help")[1].split())
    flags = [
        parameter.name
        for parameter in parameters_of(cls, ("sizes", "weights", "data", "annotations"))
    ]
    assert len(flags) >= 9
    for name in flags:
        text = field_help(cls)[name].replace("``", "`")
        assert f"--{name.replace('_', '-')}" in output and "".join(text.split())[1:] in output


def test_detect_json(edgeface: Command, bundle: str, hopper_path: Path) -> None:
    code, out, _ = edgeface(
        "detect",
        str(hopper_path),
        "--model",
        bundle,
        "--score-threshold",
        "0.3",
        "--format",
        "json",
    )
    (item,) = json.loads(out)
    assert code == 0 and item["image"] == str(hopper_path) and item["faces"]
    assert all(set(face) == {"box", "score"} and len(face["box"]) == 4 for face in item["faces"])


def test_detect_json_with_landmarks(
    edgeface: Command, exported: Callable[..., Bundle], hopper_path: Path, tmp_path: Path
) -> None:
    """JSON and the picture show landmarks beside the box; the table does not change."""
    pointed = str(exported("onnx", landmarks=True).path)
    flags = (str(hopper_path), "--model", pointed, "--score-threshold", "0.3")
    picture = tmp_path / "out.png"
    code, out, _ = edgeface("detect", *flags, "--format", "json", "--save", str(picture))
    (item,) = json.loads(out)
    assert code == 0 and item["faces"]
    for face in item["faces"]:
        assert set(face) == {"box", "score", "landmarks"}
        assert np.array(face["landmarks"]).shape == (5, 2)
    with Detector.open(pointed, score_threshold=0.3) as detector:
        assert Detections.from_json(item["faces"]) == detector.detect(hopper_path)
    drawn = read_image(picture)
    assert all((drawn == colour).all(2).any() for colour in DOT_COLOURS)
    code, out, _ = edgeface("detect", *flags)
    assert code == 0 and out.split()[:6] == ["image", "score", "x1", "y1", "x2", "y2"]


def test_detect_saves_photo_folder_and_video(
    edgeface: Command, bundle: str, hopper_path: Path, tmp_path: Path
) -> None:
    photo = cv2.imread(str(hopper_path))
    assert photo is not None
    (tmp_path / "in" / "deep").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "a.png"), photo)
    cv2.imwrite(str(tmp_path / "in" / "deep" / "a.jpg"), photo)
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 128)
    )
    for _ in range(4):
        writer.write(cv2.resize(photo, (160, 128)))
    writer.release()
    flags = ("--model", bundle, "--score-threshold", "0.1")
    assert edgeface("detect", str(hopper_path), *flags, "--save", str(tmp_path / "out.png"))[0] == 0
    marked = cv2.imread(str(tmp_path / "out.png"))
    assert marked is not None and marked.shape == photo.shape and np.any(marked != photo)
    assert edgeface("detect", str(tmp_path / "in"), *flags, "--save", str(tmp_path / "out"))[0] == 0
    assert sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")
    ) == ["a.png", "deep/a.jpg"]
    code, out, _ = edgeface(
        "detect",
        str(tmp_path / "clip.avi"),
        *flags,
        "--save",
        str(tmp_path / "out.mp4"),
        "--format",
        "json",
    )
    assert code == 0 and len(json.loads(out)) == 4
    saved = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert saved.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert (
        edgeface(
            "detect", str(tmp_path / "clip.avi"), *flags, "--max-frames", "2", "--format", "json"
        )[0]
        == 0
    )
    assert not list(tmp_path.rglob(".*"))


def test_an_error_leaves_no_half_written_video(tmp_path: Path) -> None:
    from edgeface.detections import Detections
    from edgeface.images.inputs import expand
    from edgeface.images.marked import Saver

    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 128))
    writer.write(np.zeros((128, 160, 3), np.uint8))
    writer.release()
    with (
        pytest.raises(ZeroDivisionError),
        Saver(tmp_path / "out.mp4", expand([str(clip)])) as saver,
    ):
        saver.add(f"{clip}#0", np.zeros((128, 160, 3), np.uint8), Detections.empty())
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["clip.avi"]


@pytest.mark.parametrize(
    ("kind", "word"),
    [("zero", "empty"), ("text", "not an image"), ("cut", "truncated"), ("missing", "no image")],
)
def test_bad_images(
    edgeface: Command, bundle: str, damaged: dict[str, str], kind: str, word: str, tmp_path: Path
) -> None:
    code, _, err = edgeface(
        "detect", damaged[kind], "--model", bundle, "--save", str(tmp_path / "out.png")
    )
    assert code == 2 and len(said(err)) == 1 and word in err
    assert list(tmp_path.iterdir()) == []


def test_names_of_files_cannot_speak_to_the_terminal(
    edgeface: Command, bundle: str, hopper_path: Path, tmp_path: Path
) -> None:
    evil = tmp_path / "a\x1b]0;title\x07[red].jpg"
    evil.write_bytes(hopper_path.read_bytes())
    (tmp_path / "b\x1b[2J.jpg").write_text("not an image")
    code, out, err = edgeface("detect", tmp_path, "--model", bundle, "--score-threshold", "0.1")
    assert code == 2 and "\x1b" not in out + err and "\x07" not in out + err
    assert r"a\x1b]0;title\x07[red].jpg" in out and r"b\x1b[2J.jpg" in err


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "CMYK", "P", "exif"])
def test_unusual_images_are_detected_not_refused(
    edgeface: Command, bundle: str, hopper_path: Path, tmp_path: Path, mode: str
) -> None:
    photo = Image.open(hopper_path)
    path = tmp_path / ("photo.jpg" if mode in ("CMYK", "exif") else "photo.png")
    if mode == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        photo.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=100)
    elif mode == "I;16":
        Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) << 8).save(path)
    else:
        photo.convert(mode).save(path)
    code, out, err = edgeface("detect", str(path), "--model", bundle, "--format", "json")
    assert code == 0 and said(err) == [] and "faces" in json.loads(out)[0]


@pytest.mark.parametrize("shape", [(1, 1), (20, 20000), (20000, 20)])
def test_extreme_shapes(
    edgeface: Command, bundle: str, tmp_path: Path, shape: tuple[int, int]
) -> None:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.zeros((*shape, 3), np.uint8))
    assert edgeface("detect", str(path), "--model", bundle, "--format", "json")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("detect", "{photo}", "--model", "nonsense"), ("unknown model", "nonsense")),
        (
            ("detect", "{photo}", "--model", "{tmp}/none.safetensors"),
            ("cannot read weights", "none.safetensors"),
        ),
        (
            ("detect", "{photo}", "--model", "{tmp}/a.safetensors", "--weights", "{tmp}/file"),
            ("leave --weights out",),
        ),
        (("detect", "{photo}", "--format", "xml"), ("xml", "table, json")),
        (("detect", "{photo}", "--model", "{bundle}", "--score-threshold", "2"), ("equal to 1",)),
        (("detect", "{photo}", "--model", "{bundle}", "--size", "320"), ("fixed",)),
        (("detect", "{photo}", "--size", "²"), ("'²' is neither a long side in px",)),
        (("detect", "{photo}", "--size", "1" * 5000), ("is neither a long side in px",)),
        (
            ("detect", "{photo}", "{photo}", "--model", "{bundle}", "--save", "{tmp}/a.png"),
            ("folder",),
        ),
        (("detect", "{photo}", "--model", "{bundle}", "--save", "{tmp}/a.txt"), (".png",)),
        (
            ("detect", "{photo}", "--model", "{bundle}", "--save", "{tmp}/file/a.png"),
            ("cannot write",),
        ),
        (("models", "--size", "641x480"), ("multiples of 32",)),
        (("models", "--size", "big"), ("640x480",)),
        (("eval", "--data", "{tmp}/nowhere", "--model", "{bundle}"), ("nowhere",)),
        (("eval", "--data", "{tmp}", "--model", "{bundle}", "--scale", "3"), ("640",)),
        (("train", "--data", "{tmp}", "--out", "{tmp}/run"), ("no annotations",)),
        (
            ("train", "--data", "{tmp}", "--out", "{tmp}/run", "--model", "nonsense"),
            ("unknown model",),
        ),
        (("train", "--data", "{tmp}", "--out", "{tmp}/run", "--size", "100"), ("multiple of 32",)),
        (
            ("train", "--data", "{tmp}", "--out", "{tmp}/run", "--annotations", "{tmp}/file"),
            ("file",),
        ),
        (("train", "--data", "{tmp}", "--out", "{tmp}/run", "--device", "warp"), ("warp",)),
    ],
)
def test_mistakes_get_one_line(
    edgeface: Command,
    bundle: str,
    hopper_path: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    (tmp_path / "file").write_text("")
    filled = [a.format(photo=hopper_path, bundle=bundle, tmp=tmp_path) for a in arguments]
    failed(edgeface(*filled), *words)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_models_json(edgeface: Command) -> None:
    code, out, _ = edgeface("models", "--size", "640x480", "--format", "json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and len(rows) >= 10
    published = rows["damofd-0.5g"]
    assert (round(published["params"] / 1e6, 4), round(published["macs"] / 1e6, 1)) == (
        0.2582,
        492.5,
    )


def test_doctor_json_names_every_backend(edgeface: Command) -> None:
    from edgeface.backends import BACKENDS

    code, out, _ = edgeface("doctor", "--format", "json")
    report = json.loads(out)
    assert code == 0 and [b["target"] for b in report["backends"]] == list(BACKENDS)
    installed = {b["target"]: b["version"] for b in report["backends"]}
    import onnxruntime

    assert installed["onnx"] == onnxruntime.__version__


@pytest.mark.parametrize("there", OPENCV)
def test_doctor_knows_every_name_of_opencv(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(version="5.1")] if name == there else []

    monkeypatch.setattr(metadata, "distributions", installed)
    (found,) = (row for row in diagnose()["tools"] if row["package"] == OPENCV[0])
    assert (found["version"], found["fix"]) == ("5.1", None)


def test_closed_pipe_is_no_error(bundle: str, hopper_path: Path) -> None:
    """``edgeface detect ... | head -0`` ends quietly."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edgeface",
            "detect",
            str(hopper_path),
            "--model",
            bundle,
            "--format",
            "json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.wait()
    assert b"Traceback" not in err


def test_options_of_dataclasses_are_whole_sentences() -> None:
    for cls in (TrainOptions, StudyOptions, AutoFEMOptions, Protocol):
        for parameter in parameters_of(cls, ("sizes", "weights", "data", "annotations")):
            (info,) = parameter.annotation.__metadata__
            assert info.help.endswith(".") and not info.help.startswith("Of "), info.help
