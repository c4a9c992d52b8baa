"""From request to INT8 Bundle with a real runtime, on portraits: which files are written, and
resuming after a kill.

ONNX Runtime stands for all targets: its export is the quickest, and the pipeline does not depend on
the runtime.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.bundle import Bundle, Manifest
from edgeface.detector import Detector
from edgeface.errors import DataError, MissingExtraError, OptionError, OutputError, QuantizeError
from edgeface.evaluation import evaluate_model
from quantize.onnx import OnnxQuantizer
from quantize.pipeline import Quantization, QuantizeRequest, quantize_model
from quantize.request import check_installed

IMAGES = 6


def request(bundle: Bundle, **options: Any) -> QuantizeRequest:
    return QuantizeRequest("onnx", bundle=bundle.path, **{"images": IMAGES} | options)


def content(bundle: Bundle) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.path.iterdir()}


@pytest.fixture(scope="module")
def done(
    float_bundle: Bundle, mini_wider: Path, tmp_path_factory: pytest.TempPathFactory
) -> Quantization:
    return quantize_model(request(float_bundle), tmp_path_factory.mktemp("dist"), data=mini_wider)


def hard_request(bundle: Bundle) -> QuantizeRequest:
    """A request that, with ranges from black photos, holds its budget only with layers in float."""
    return request(bundle, images=3, max_reverted=1.0)


class Steps:
    """Progress that records the steps done and interrupts the run at ``kill_at``."""

    def __init__(self, kill_at: tuple[str, int] | None = None) -> None:
        self.seen: list[tuple[str, int]] = []
        self.kill_at = kill_at

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        if (what, done) == self.kill_at:
            raise KeyboardInterrupt
        self.seen.append((what, done))

    def measured(self) -> list[str]:
        """Names of the AP measurements that were finished, in order."""
        return [what for what, done in self.seen if what.startswith("measuring") and done == 8]


@pytest.fixture(scope="module")
def reverted(
    float_bundle: Bundle, mini_wider: Path, black: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Quantization, Steps]:
    """Result and steps of :func:`hard_request` with black photos."""
    steps = Steps()
    out = tmp_path_factory.mktemp("reverted")
    return (
        quantize_model(
            hard_request(float_bundle), out, data=mini_wider, calibration=black, progress=steps
        ),
        steps,
    )


class TestBundle:
    def test_name_and_files(self, done: Quantization, float_bundle: Bundle) -> None:
        assert done.bundle.path.name == "edgeface-n-onnx-int8-160x128"
        assert [p.name for p in done.bundle.path.parent.iterdir()] == [done.bundle.path.name], (
            "no journal is left"
        )
        assert done.bundle.size_bytes < 0.35 * float_bundle.size_bytes
        assert done.float_bundle == float_bundle

    def test_manifest(self, done: Quantization, float_bundle: Bundle) -> None:
        manifest, exact = done.bundle.manifest, float_bundle.manifest
        assert (manifest.precision, manifest.parity) == ("int8", None)
        assert (manifest.weights, manifest.architecture) == (exact.weights, exact.architecture)
        assert exact.tools.items() <= manifest.tools.items()
        assert manifest.calibration == {
            "method": OnnxQuantizer.scales[0],
            "images": IMAGES,
            "seed": 0,
            "held_out": 6,
            "with_faces": 6,
            "sha256": manifest.calibration and manifest.calibration["sha256"],
        }
        assert len(set(done.calibration["sha256"])) == IMAGES

    def test_accuracy_is_what_the_evaluation_says(
        self, done: Quantization, mini_wider: Path
    ) -> None:
        accuracy = done.accuracy
        for name, bundle in (("float", done.float_bundle), ("int8", done.bundle)):
            report = evaluate_model(bundle.path, mini_wider).report
            assert accuracy[name] == {
                s: pytest.approx(getattr(report, s), abs=1e-6) for s in accuracy[name]
            }
            assert set(accuracy[name]) == {"easy", "medium", "hard"}
            assert accuracy["by_height"][name]["32-96"] == pytest.approx(
                report.by_height["32-96"], abs=1e-6
            )
            assert accuracy["by_height"][name]["0-16"] is None
            assert str(report.protocol) == accuracy["protocol"]
        assert (accuracy["images"], accuracy["reverted_layers"], accuracy["max_drop"]) == (
            8,
            [],
            0.5,
        )
        assert accuracy["float"]["hard"] > 0.9, "the network finds these faces"
        assert set(accuracy["snr_db"]) == set(done.bundle.manifest.outputs)
        assert min(accuracy["snr_db"].values()) > 10

    def test_nothing_about_this_machine(self, done: Quantization) -> None:
        text = (done.bundle.path / "manifest.json").read_text()
        assert "/tmp" not in text and str(Path.home()) not in text and "_ms" not in text

    def test_same_inputs_same_bytes(
        self, done: Quantization, float_bundle: Bundle, mini_wider: Path, tmp_path: Path
    ) -> None:
        again = quantize_model(request(float_bundle), tmp_path, data=mini_wider)
        assert content(again.bundle) == content(done.bundle)

    def test_other_photos(
        self, float_bundle: Bundle, mini_wider: Path, tmp_path: Path, done: Quantization
    ) -> None:
        other = quantize_model(request(float_bundle, calibration_seed=1), tmp_path, data=mini_wider)
        assert other.calibration["seed"] == 1
        assert set(other.calibration["sha256"]) != set(done.calibration["sha256"])

    def test_finds_the_face(self, done: Quantization, astronaut: NDArray[np.uint8]) -> None:
        with Detector.open(done.bundle.path) as detector:
            faces = detector.detect(astronaut)
        assert len(faces.boxes) == 1

    def test_exports_anew_without_a_bundle(
        self, float_bundle: Bundle, mini_wider: Path, tmp_path: Path
    ) -> None:
        made = quantize_model(
            QuantizeRequest("onnx", width=160, height=128, images=IMAGES), tmp_path, data=mini_wider
        )
        assert made.float_bundle.path.parent == tmp_path
        assert made.float_bundle.manifest.files == float_bundle.manifest.files


class TestUnmeasured:
    def check(self, made: Quantization, reason: str, notes: list[str]) -> None:
        accuracy = made.accuracy
        assert accuracy["float"] is None and accuracy["int8"] is None and accuracy["images"] == 0
        assert accuracy["note"] == f"not measured: {reason}"
        assert notes == [f"accuracy is not measured and no budget is held: {reason}"]
        assert accuracy["reverted_layers"] == []
        assert all(np.isfinite(list(accuracy["snr_db"].values())))
        assert Manifest.from_json(json.loads(made.bundle.manifest.dumps())) == made.bundle.manifest

    def test_random_weights(
        self,
        exported: Callable[..., Bundle],
        float_bundle: Bundle,
        mini_wider: Path,
        tmp_path: Path,
    ) -> None:
        """AP of random weights means nothing: even with --data it is left out, and the manifest
        says why."""
        notes: list[str] = []
        made = quantize_model(
            request(exported("onnx")), tmp_path, data=mini_wider, note=notes.append
        )
        self.check(made, "the weights are random, so AP says nothing", notes)

    def test_landmarks(
        self, exported: Callable[..., Bundle], mini_wider: Path, tmp_path: Path
    ) -> None:
        """Their shift is measured even without AP; networks without landmarks have no such
        figure."""
        for landmarks in (True, False):
            floats = exported("onnx", landmarks=landmarks)
            made = quantize_model(request(floats), tmp_path / str(landmarks), data=mini_wider)
            assert set(made.accuracy["snr_db"]) == set(floats.manifest.outputs)
            assert ("landmark_shift" in made.accuracy) == landmarks
            assert 0 < made.accuracy.get("landmark_shift", 0.01) < 0.1

    def test_no_accuracy(self, float_bundle: Bundle, mini_wider: Path, tmp_path: Path) -> None:
        notes: list[str] = []
        photos = mini_wider / "WIDER_train" / "images"
        made = quantize_model(
            request(float_bundle, accuracy=False), tmp_path, calibration=photos, note=notes.append
        )
        self.check(made, "left out with --no-accuracy", notes)


class TestBudget:
    def test_cannot_be_held(
        self, float_bundle: Bundle, mini_wider: Path, black: Path, tmp_path: Path
    ) -> None:
        options = {"images": 3, "scale": "kl", "max_reverted": 0.0}
        message = (
            r"^the budget of 0\.5 AP points cannot be held: best drop ([0-9.]+) points with 0 of"
            r" \d+ layers in "
            r"float: accept it with --max-drop \1, or .* another --scale \(mse, max, percentile\)$"
        )
        with pytest.raises(QuantizeError, match=message):
            quantize_model(
                request(float_bundle, **options), tmp_path, data=mini_wider, calibration=black
            )
        assert [p.name for p in tmp_path.iterdir()] == [
            ".edgeface-n-onnx-int8-160x128.journal.json"
        ]

    def test_ranges_are_chosen_another_way_before_a_layer_is_kept_in_float(
        self, float_bundle: Bundle, mini_wider: Path, black: Path, tmp_path: Path
    ) -> None:
        drops: dict[str, float] = {}
        for scale in OnnxQuantizer.scales:
            asked = request(float_bundle, images=3, scale=scale, max_drop=100.0)
            accuracy = quantize_model(
                asked, tmp_path / scale, data=mini_wider, calibration=black
            ).accuracy
            drops[scale] = 100 * max(
                accuracy["float"][name] - accuracy["int8"][name]
                for name in ("easy", "medium", "hard")
                if accuracy["float"][name] is not None
            )
        least = max(min(drops.values()), 0) + 1e-3  # the manifest has six digits
        steps = Steps()
        made = quantize_model(
            request(float_bundle, images=3, max_drop=least),
            tmp_path / "any",
            data=mini_wider,
            calibration=black,
            progress=steps,
        )
        first = next(scale for scale, drop in drops.items() if drop <= least)
        assert first != OnnxQuantizer.scales[0], "else nothing is chosen here"
        assert made.bundle.manifest.calibration is not None
        assert made.bundle.manifest.calibration["method"] == first
        assert made.accuracy["reverted_layers"] == []
        tried = [what for what, _ in steps.seen if what.endswith(" ranges")]
        assert len(tried) == list(drops).index(first)

    def test_layers_are_kept_in_float_until_it_holds(
        self, reverted: tuple[Quantization, Steps], mini_wider: Path, done: Quantization
    ) -> None:
        made, steps = reverted
        count = made.calibration["images"]
        looked = [done for what, done in steps.seen if what.startswith("looking for faces")]
        assert looked == list(range(count)), "thousands of photos take minutes"
        assert 0 < len(made.accuracy["reverted_layers"]) <= made.layers
        report = evaluate_model(made.bundle.path, mini_wider).report
        assert report.hard is not None and made.accuracy["float"]["hard"] - report.hard <= 0.005
        assert done.bundle.size_bytes < made.bundle.size_bytes


class TestResume:
    def test_same_bytes_and_no_measurement_twice(
        self,
        reverted: tuple[Quantization, Steps],
        float_bundle: Bundle,
        mini_wider: Path,
        black: Path,
        tmp_path: Path,
    ) -> None:
        """A run is killed while measuring float, while ranking, and while measuring a candidate."""
        whole, uninterrupted = reverted
        measured: list[str] = []
        for kill_at in (
            ("measuring float", 3),
            ("ranking the layers by damage", 5),
            ("measuring INT8 with 2 layers in float", 4),
        ):
            steps = Steps(kill_at)
            with pytest.raises(KeyboardInterrupt):
                quantize_model(
                    hard_request(float_bundle),
                    tmp_path,
                    data=mini_wider,
                    calibration=black,
                    progress=steps,
                )
            assert not list(tmp_path.glob("edgeface*"))
            measured += steps.measured()
        steps = Steps()
        resumed = quantize_model(
            hard_request(float_bundle), tmp_path, data=mini_wider, calibration=black, progress=steps
        )
        assert content(resumed.bundle) == content(whole.bundle)
        assert measured + steps.measured() == uninterrupted.measured()
        assert not list(tmp_path.glob(".*")), "neither journal nor half a file is left"

    def test_damaged_and_foreign_journals_are_left_out_of_account(
        self, float_bundle: Bundle, mini_wider: Path, tmp_path: Path, done: Quantization
    ) -> None:
        journal = tmp_path / f".{done.bundle.path.name}.journal.json"
        for text in ("{", json.dumps({"fingerprint": "0" * 64, "records": {"float": {}}})):
            journal.write_text(text)
            notes: list[str] = []
            made = quantize_model(
                request(float_bundle), tmp_path, data=mini_wider, note=notes.append
            )
            assert len(notes) == 2 and notes[1].startswith(str(journal))
            assert content(made.bundle) == content(done.bundle)
            assert not journal.exists()


class TestMistakes:
    def test_scale(self, float_bundle: Bundle, mini_wider: Path, tmp_path: Path) -> None:
        with pytest.raises(
            OptionError, match=f"--scale best: onnx takes {', '.join(OnnxQuantizer.scales)}"
        ):
            quantize_model(request(float_bundle, scale="best"), tmp_path, data=mini_wider)

    def test_missing_converter(self) -> None:
        class Needy(OnnxQuantizer):
            distributions = ("onnx", "no-such-converter")

        with pytest.raises(
            MissingExtraError,
            match=r"quantising for onnx needs the package 'no-such-converter': run: "
            r"pip install 'edgeface\[export\]'",
        ):
            check_installed("onnx", Needy)

    def test_no_faces_to_measure_on(
        self, float_bundle: Bundle, tmp_path: Path, write_mat: Callable[..., Path], mini_wider: Path
    ) -> None:
        path = tmp_path / "WIDER_val" / "images" / "0--A" / "1.png"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.zeros((9, 9, 3), np.uint8))
        write_mat(tmp_path, {"0--A/1": ([], {s: [] for s in ("easy", "medium", "hard")})})
        with pytest.raises(DataError, match="no face counts in the 1 validation photos"):
            quantize_model(
                request(float_bundle), tmp_path / "out", data=tmp_path, calibration=mini_wider
            )

    def test_disk_full(
        self,
        float_bundle: Bundle,
        mini_wider: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """If the disk fills up while the Bundle is written, no partial Bundle is left and an older
        one stays whole."""
        options = request(float_bundle, accuracy=False)
        older = content(quantize_model(options, tmp_path, calibration=mini_wider).bundle)
        original = Path.write_bytes

        def full(self: Path, data: bytes) -> int:
            if tmp_path in self.parents:
                original(self, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(self, data)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match=r"^cannot write .*: No space left on device$"):
            quantize_model(options, tmp_path, calibration=mini_wider)
        monkeypatch.undo()
        assert content(Bundle.open(tmp_path / "edgeface-n-onnx-int8-160x128")) == older
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            ".edgeface-n-onnx-int8-160x128.journal.json",
            "edgeface-n-onnx-int8-160x128",
        ]
