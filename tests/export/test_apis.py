"""Files for detectors of other libraries, which find the same faces with them as ours does."""

from __future__ import annotations

import io
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import Command, CommandInto, failed
from flat_tables import Flat, decoding_options, metadata_of
from venvs import make_venv, run_json

from edgeface import checkout
from edgeface.bundle import README, Bundle
from edgeface.decode import decode, nms
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import BundleError, ExportError
from edgeface.images import letterbox, read_image
from edgeface.runners import open_runner
from export import ExportRequest, export_model, load_source
from export.apis import adapt, google, pipeline

Make = Callable[..., Bundle]
GOOGLE = ("mediapipe", "task-library")


@pytest.fixture
def cli(edgeface: Command, tmp_path: Path) -> CommandInto:
    return CommandInto(edgeface, "export", tmp_path / "dist")


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """``shipped(target)`` -> fp32 Bundle of edgeface-n as it ships; onnx takes any size."""
    made: dict[str, Bundle] = {}

    def make(target: str) -> Bundle:
        if target not in made:
            request = ExportRequest(target, "fp32", 320, 320, target == "onnx")
            out = tmp_path_factory.mktemp("dist")
            made[target] = export_model(load_source("edgeface-n"), request, out).bundle
        return made[target]

    return make


class TestOpenCV:
    @pytest.fixture(scope="class")
    def made(self, shipped: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
        return adapt(shipped("onnx"), "opencv", tmp_path_factory.mktemp("dist"))

    @pytest.mark.parametrize("crop", [(512, 512), (387, 500), (500, 290)])
    def test_the_same_faces(
        self, made: Bundle, shipped: Any, astronaut: Any, crop: tuple[int, int]
    ) -> None:
        """Boxes, landmarks and scores agree at any size: OpenCV pads to multiples of 32, as we
        do."""
        photo = np.ascontiguousarray(astronaut[: crop[0], : crop[1]])
        found = with_opencv(made.primary, photo)
        expected = at_original_size(shipped("onnx"), photo)
        assert len(found) == len(expected) >= 1
        compare(found, expected, 0.01)

    def test_every_candidate(self, exported: Make, astronaut: Any, tmp_path: Path) -> None:
        """The network finds hundreds; NMS is off, because OpenCV computes it on whole px."""
        plain = exported("onnx", dynamic=True, landmarks=True)
        photo = np.ascontiguousarray(astronaut[:256, :320])
        made = adapt(plain, "opencv", tmp_path)
        found = with_opencv(made.primary, photo, iou=1)
        expected = at_original_size(plain, photo, iou=1)
        assert len(found) == len(expected) > 50
        compare(found, expected, 0.01)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--model", "scrfd-0.5g-bn"), "needs five landmarks a face"),
            (("--model", "damofd-0.5g-kps-bn"), "takes one box a cell at strides 8, 16 and 32"),
            (("--model", "eresfd-16"), "needs five landmarks a face"),
            (("--precision", "fp16"), "takes fp32 alone"),
            (("--target", "tflite"), "--for opencv: its files are onnx: give that as --target"),
            (("--for", "vision"), "--for 'vision' is not one of: mediapipe, task-library, opencv"),
        ],
    )
    def test_refused(self, cli: CommandInto, arguments: tuple[str, ...], message: str) -> None:
        line = failed(cli("--target", "onnx", "--for", "opencv", *arguments))
        assert message in line and not cli.out.exists()

    def test_a_bundle_of_one_size(self, cli: CommandInto, exported: Make) -> None:
        fixed = exported("onnx", landmarks=True).path
        line = failed(cli("--target", "onnx", "--for", "opencv", "--bundle", fixed))
        assert "takes one size: export it with --dynamic" in line

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "packages",
        [
            ("opencv-python-headless==4.8.1.78", "numpy<2"),
            ("opencv-python-headless==4.12.0.88",),
            ("opencv-contrib-python==5.1.0.95",),
        ],
        ids=lambda packages: packages[0],
    )
    def test_versions(
        self,
        made: Bundle,
        shipped: Any,
        astronaut: Any,
        tmp_path: Path,
        packages: tuple[str, ...],
    ) -> None:
        photo = np.ascontiguousarray(astronaut[:387, :500])
        np.save(tmp_path / "photo.npy", photo[..., ::-1])
        code = """
            import sys, json, cv2, numpy
            photo = numpy.load(sys.argv[2])
            detector = cv2.FaceDetectorYN.create(sys.argv[1], "", (320, 320), 0.3, 0.45, 5000)
            detector.setInputSize(photo.shape[1::-1])
            print(json.dumps(detector.detect(photo)[1].tolist()))
            """
        python = make_venv(tmp_path / "venv", *packages)
        rows = run_json(python, textwrap.dedent(code), made.primary, tmp_path / "photo.npy")
        compare(from_opencv(np.array(rows), photo), at_original_size(shipped("onnx"), photo), 0.01)


def with_opencv(path: Path, photo: Any, score: float = 0.3, iou: float = 0.45) -> Detections:
    detector = cv2.FaceDetectorYN.create(str(path), "", (320, 320), score, iou, 5000)
    detector.setInputSize(photo.shape[1::-1])
    return from_opencv(detector.detect(np.ascontiguousarray(photo[..., ::-1]))[1], photo)


def from_opencv(rows: Any, photo: Any) -> Detections:
    corners = np.concatenate((rows[:, :2], rows[:, :2] + rows[:, 2:4]), 1)
    return within(photo, corners, rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2))


def within(photo: Any, corners: Any, scores: Any, points: Any) -> Detections:
    boxes = np.clip(corners, 0, photo.shape[1::-1] * 2).astype(np.float32)
    whole = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return Detections(
        boxes[whole], scores[whole].astype(np.float32), points[whole].astype(np.float32)
    )


def at_original_size(
    bundle: Bundle, photo: Any, score: float = 0.3, iou: float = 0.45
) -> Detections:
    return with_own_points(bundle, photo, score, iou, "original")


def with_own_points(
    bundle: Bundle, photo: Any, score: float = 0.3, iou: float = 0.45, size: str | None = None
) -> Detections:
    """Detections in a photo of the network's size, or of any size with ``size`` "original".

    Each box keeps its own landmarks: other detectors do not average them."""
    with Detector.open(bundle.path, size=size) as detector:
        heads = detector.runner.run(detector.preprocess(photo).batch)
        boxes, scores, points = decode(heads, detector.runner.layout, score)
    kept = nms(boxes, scores, iou)
    assert points is not None
    return within(photo, boxes[kept], scores[kept], points[kept])


def compare(found: Detections, expected: Detections, px: float) -> None:
    """Compare in any order, because OpenCV's sort does not define the order of equal scores."""
    apart = np.abs(found.boxes - expected.boxes[:, None]).max(axis=2)
    twin = np.argmin(apart + np.abs(found.scores - expected.scores[:, None]), axis=1)
    assert sorted(twin) == list(range(len(found)))
    np.testing.assert_allclose(found.boxes[twin], expected.boxes, atol=px)
    np.testing.assert_allclose(found.scores[twin], expected.scores, atol=1e-4)
    if found.landmarks is not None and expected.landmarks is not None:
        np.testing.assert_allclose(found.landmarks[twin], expected.landmarks, atol=px)


class TestGoogle:
    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_decoded_as_mediapipe_does(
        self, precision: str, exported: Make, astronaut: Any, tmp_path: Path
    ) -> None:
        """Boxes are decoded from the outputs, with the anchors and options stored in the file."""
        plain = exported("tflite", precision, landmarks=True)
        spec = plain.manifest.input
        made = adapt(plain, "mediapipe", tmp_path)
        photo = letterbox(astronaut, spec.width, spec.height)[0]
        outputs = google.MediaPipe().run(made.read(), photo[None])
        options = decoding_options(made.read())
        location, score = outputs["location"][0], outputs["score"][0, :, 0]
        anchors = options.tables(1, 0, 0)
        assert len(anchors) == len(location) == options.child(2).integer(1)
        centres = np.array([[a.real(0), a.real(1)] for a in anchors])
        sides = np.array([[a.real(2), a.real(3)] for a in anchors])
        assert [options.child(2).integer(i) for i in range(6)] == [1, len(anchors), 14, 4, 5, 2]
        yx, hw = location[:, 1::-1] * sides + centres, location[:, 3:1:-1] * sides
        corners = np.concatenate((yx - hw / 2, yx + hw / 2), 1) * ((spec.width, spec.height) * 2)
        points = location[:, 4:].reshape(-1, 5, 2)[..., ::-1] * sides[:, None] + centres[:, None]
        expected = candidates(plain, photo)
        best = np.argsort(-score, kind="stable")[: len(expected)]
        found = Detections(
            corners[best].astype(np.float32),
            score[best],
            (points[best] * (spec.width, spec.height)).astype(np.float32),
        )
        compare(found, expected, 0.01)

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_with_suppression_inside(
        self, precision: str, exported: Make, astronaut: Any, tmp_path: Path
    ) -> None:
        """The file returns at most 100 faces, with coordinates from 0 to 1."""
        plain = exported("tflite", precision, landmarks=True)
        spec = plain.manifest.input
        made = adapt(plain, "task-library", tmp_path)
        photo = letterbox(astronaut, spec.width, spec.height)[0]
        outputs = google.TaskLibrary().run(made.read(), photo[None])
        count = int(outputs["count"][0])
        corners = outputs["boxes"][0, :count][:, [1, 0, 3, 2]] * ((spec.width, spec.height) * 2)
        boxes = np.clip(corners, 0, (spec.width, spec.height) * 2).astype(np.float32)
        found = Detections(boxes, outputs["scores"][0, :count])
        with Detector(open_runner(plain), score_threshold=google.LOWEST) as detector:
            expected = detector.detect(photo)
        assert 20 < count <= google.MOST
        keep = found.scores >= found.scores.min() + 1e-4
        best = expected.scores > found.scores.min() + 1e-4
        compare(
            Detections(found.boxes[keep], found.scores[keep]),
            Detections(expected.boxes[best], expected.scores[best]),
            0.01,
        )

    @pytest.mark.parametrize("api", GOOGLE)
    def test_what_the_file_says(self, api: str, exported: Make, tmp_path: Path) -> None:
        content = adapt(exported("tflite"), api, tmp_path).read()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.namelist() == ["labels.txt"] and archive.read("labels.txt") == b"face\n"
            assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED
        metadata = Flat(metadata_of(content, b"M001"))
        graph = metadata.tables(3)[0]
        names = [table.text(0) for table in graph.tables(3)]
        assert [table.text(0) for table in graph.tables(2)] == ["image"]
        if api == "mediapipe":
            assert names == ["location", "score"]
            assert graph.tables(9)[0].text(0) == "DETECTOR_METADATA"
        else:
            assert names == ["location", "category", "score", "number of detections"]
            assert graph.tables(8)[0].text(0) == "detection_result"

    @pytest.mark.parametrize("api", GOOGLE)
    def test_same_bytes(self, api: str, exported: Make, tmp_path: Path) -> None:
        texts = [
            adapt(exported("tflite", landmarks=True), api, tmp_path / name).read() for name in "ab"
        ]
        assert texts[0] == texts[1]

    def test_prior_boxes_are_refused(self, cli: CommandInto) -> None:
        line = failed(cli("--target", "tflite", "--for", "mediapipe", "--model", "eresfd-16"))
        assert "coded by prior boxes" in line

    @pytest.mark.slow
    def test_mediapipe_itself(self, shipped: Any, astronaut: Any, tmp_path: Path) -> None:
        """Boxes agree within a px, because MediaPipe truncates them to whole px; it does not
        truncate landmarks."""
        photo = cv2.resize(astronaut, (320, 320), interpolation=cv2.INTER_AREA)
        np.save(tmp_path / "photo.npy", photo)
        files = [adapt(shipped("tflite"), api, tmp_path).primary for api in GOOGLE]
        code = """
            import sys, json, numpy, mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
            image = mediapipe.Image(mediapipe.ImageFormat.SRGB, numpy.load(sys.argv[1]))
            found = []
            for name in sys.argv[2:]:
                options = vision.ObjectDetectorOptions(BaseOptions(name), score_threshold=0.3)
                with vision.ObjectDetector.create_from_options(options) as detector:
                    for face in detector.detect(image).detections:
                        b, kind = face.bounding_box, face.categories[0]
                        box = [b.origin_x, b.origin_y, b.width, b.height]
                        points = [[p.x * 320, p.y * 320] for p in face.keypoints or []]
                        found.append([kind.category_name, kind.score, box, points])
            print(json.dumps(found))
            """
        python = make_venv(tmp_path / "venv", "mediapipe==1.2.3")
        found = run_json(python, textwrap.dedent(code), tmp_path / "photo.npy", *files)
        expected = with_own_points(shipped("tflite"), photo)
        assert len(found) == 2 * len(expected) == 2 and expected.landmarks is not None
        x1, y1, x2, y2 = expected.boxes[0]
        for name, score, box, _ in found:
            assert name == "face" and abs(score - expected.scores[0]) < 1e-4
            assert np.abs(np.array(box) - (x1, y1, x2 - x1, y2 - y1)).max() <= 1
        np.testing.assert_allclose(found[0][3], expected.landmarks[0], atol=0.05)


def candidates(bundle: Bundle, photo: Any) -> Detections:
    """The 200 best candidates, without NMS and not clipped."""

    with open_runner(bundle) as runner:
        boxes, scores, points = decode(runner.run(photo[None]), runner.layout, 0, 200)
    return Detections(boxes, scores, points)


class TestBundle:
    """Behaviour that the Bundles for all APIs share."""

    @pytest.mark.parametrize(
        ("target", "api"),
        [("onnx", "opencv"), ("tflite", "mediapipe")],
    )
    def test_from_name_to_file(
        self, target: str, api: str, cli: CommandInto, edgeface: Command
    ) -> None:
        code, out, err = cli("--target", target, "--for", api, "--size", "64x64")
        assert code == 0, err
        marks = "-dynamic" if api == "opencv" else ""
        folder = cli.out / f"edgeface-n-{target}-fp32-64x64{marks}-{api}"
        assert str(folder) in out and [path.name for path in cli.out.iterdir()] == [folder.name]
        bundle = Bundle.open(folder)
        assert bundle.manifest.api == api and bundle.manifest.contract is None
        assert bundle.manifest.parity is not None and bundle.manifest.input.dtype == "float32"
        text = (folder / README).read_text()
        assert bundle.manifest.primary in text and bundle.manifest.weights.sha256 in text
        line = failed(edgeface("detect", "photo.jpg", "--model", folder))
        assert "is made for" in line and "for edgeface, export without --for" in line
        with pytest.raises(BundleError, match="is made for"):
            adapt(bundle, api, cli.out)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "--bundle is for making a file for the API of others"),
            (("--for", "mediapipe", "--size", "64x64"), "--bundle excludes --size"),
            (("--for", "mediapipe", "--weights", "a"), "--bundle excludes --weights"),
            (("--for", "opencv", "--target", "onnx"), "is made for tflite, --target says onnx"),
        ],
    )
    def test_bundle_and_what_it_excludes(
        self, cli: CommandInto, exported: Make, arguments: tuple[str, ...], message: str
    ) -> None:
        bundle = exported("tflite", landmarks=True).path
        assert message in failed(cli("--target", "tflite", "--bundle", bundle, *arguments))

    def test_of_an_int8_bundle(self, cli: CommandInto, exported: Make) -> None:
        bundle = exported("tflite", "int8", landmarks=True).path
        code, _, err = cli("--target", "tflite", "--for", "mediapipe", "--bundle", bundle)
        assert code == 0, err
        made = Bundle.open(next(cli.out.iterdir()))
        assert made.path.name == "edgeface-n-tflite-int8-160x128-mediapipe"
        plain = adapt(exported("tflite", landmarks=True), "mediapipe", cli.out)
        assert made.size_bytes < 0.6 * plain.size_bytes

    def test_a_file_that_differs_is_not_written(
        self, exported: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = ((0, -0.5, 0, 0.5), (-0.5, 0, 0.5, 0), (0, 1, 0, 1), (1, 0, 1, 0.01))
        monkeypatch.setattr(google, "CORNERS", wrong)
        with pytest.raises(ExportError, match=r"differs from the tflite file .*location"):
            adapt(exported("tflite", landmarks=True), "mediapipe", tmp_path)
        assert not list(tmp_path.iterdir())

    def test_nan_is_a_difference(
        self, exported: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = iter(({"location": 0.0, "score": np.nan}, {"location": 0.0, "score": 0.0}))
        monkeypatch.setattr(google.MediaPipe, "differences", lambda *_: next(found))
        with pytest.raises(ExportError, match=r"differs from the tflite file .*: score nan >"):
            adapt(exported("tflite", landmarks=True), "mediapipe", tmp_path)
        assert not list(tmp_path.iterdir())

    def test_every_api_has_an_adapter(self) -> None:
        from edgeface.bundle import APIS
        from edgeface.bundle.readme import CALLS

        assert pipeline.ADAPTERS.keys() == APIS.keys() == CALLS.keys()

    def test_in_python(self, tmp_path: Path) -> None:
        made = checkout.export("edgeface-n", "onnx", size="64x64", made_for="opencv", out=tmp_path)
        assert made.path == tmp_path / "edgeface-n-onnx-fp32-64x64-dynamic-opencv"
        photo = read_image(Path(__file__).parents[2] / "docs" / "photo.jpg")
        assert len(with_opencv(made.primary, photo, score=0.5)) == 1
