"""One quantisation, from request to INT8 Bundle: check the request, read the photos, get the float
Bundle, measure ranges, hold the budget, and only then write a file.

All checks of the request run before the first slow step.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeface import __version__, zoo
from edgeface.backends import get_backend
from edgeface.bundle import Bundle, Manifest, refuse_other_weights, write_bundle
from edgeface.detector import Detector
from edgeface.errors import DataError, OptionError, QuantizeError
from edgeface.files import LOCK, check_writable, locked
from edgeface.images.reading import OnError
from edgeface.quiet import quiet_stage
from edgeface.runners import open_runner, read_contract
from edgeface.types import Note, Progress, Stage, unnoted, unseen
from export.pipeline import export_model
from export.request import ExportRequest, require, versions
from quantize.base import Quantized, Quantizer
from quantize.budget import ROUNDING, Budget, FileAccuracy, HeadNoise, worst_drop
from quantize.calibration import CalibrationSet, left_out, read_calibration
from quantize.journal import QuantizeJournal, fingerprint
from quantize.measure import (
    ValidationSet,
    accuracy_of,
    as_bundle,
    head_noise,
    heads_of,
    int8_manifest,
    named_files,
)
from quantize.request import Photos, QuantizeRequest, check_installed, open_float

__all__ = ["Quantization", "QuantizeRequest", "quantize_model"]

FACE_SCORE = 0.3
LEAST_WITH_FACES = 0.1
"""least share of the calibration photos in which the float model should find a face; with fewer, a
note warns that the photos hardly fit the model's purpose"""


@dataclass(frozen=True)
class Quantization:
    """The result of :func:`quantize_model`."""

    bundle: Bundle
    float_bundle: Bundle
    request: QuantizeRequest
    layers: int
    """number of layers that INT8 can carry, including those kept in float to hold the budget"""

    @property
    def accuracy(self) -> dict[str, Any]:
        """The ``accuracy`` field of the manifest."""
        accuracy = self.bundle.manifest.accuracy
        assert accuracy is not None, "written by quantize_model"
        return accuracy

    @property
    def calibration(self) -> dict[str, Any]:
        """The ``calibration`` field of the manifest."""
        calibration = self.bundle.manifest.calibration
        assert calibration is not None, "written by quantize_model"
        return calibration


def quantize_model(
    request: QuantizeRequest,
    out: Path | str = "dist",
    *,
    data: Path | str | None = None,
    annotations: Path | str | None = None,
    calibration: Path | str | None = None,
    stage: Stage = nullcontext,
    progress: Progress = unseen,
    note: Note = unnoted,
    verbose: bool = False,
    on_error: OnError | None = None,
    leave_out: Collection[str] = (),
) -> Quantization:
    """Make ``out/<model>-<target>-int8-<W>x<H>/`` as ``request`` says.

    data: a WIDER FACE root, to measure accuracy on, or the folder of the photos named in
    ``annotations``, which are not used for calibration. calibration: a folder of photos; default:
    the training photos of ``data``, or its photos without annotations. leave_out: paths, relative
    to the calibration folder, of photos not to calibrate on. stage, progress, note: callbacks that
    report the work. on_error: called for a photo that cannot be read, which is then skipped.
    Raises an EdgefaceError in one line. Then, as after KeyboardInterrupt, no INT8 Bundle is
    written, but the measurements are kept in ``out`` and the same call continues from there.
    """
    photos = Photos(data, annotations, calibration, frozenset(leave_out))
    job = _Job(request, Path(out), photos, stage, progress, note, on_error)
    job.prepare()
    float_bundle = job.float_bundle(verbose)
    name = job.name(float_bundle)
    with (
        locked(job.out / f".{name}{LOCK}", f"{job.out / name}"),
        quiet_stage(f"quantising {float_bundle.manifest.model} for {request.target}", verbose),
    ):
        job.count_faces(float_bundle)
        return job.within_budget(float_bundle)


class _Job:
    """One call of :func:`quantize_model`, step by step."""

    def __init__(
        self,
        request: QuantizeRequest,
        out: Path,
        sources: Photos,
        stage: Stage,
        progress: Progress,
        note: Note,
        on_error: OnError | None,
    ) -> None:
        self.request, self.out, self.on_error = request, out, on_error
        self.sources = sources
        self.stage, self.progress, self.note = stage, progress, note
        kind: Any = get_backend(request.target).load_quantizer()
        self.kind: type[Quantizer] = kind
        self.given: Bundle | None = None
        self.width, self.height = request.width, request.height
        self.validation: ValidationSet | None = None
        self.with_faces = 0
        """number of calibration photos in which the float model finds a face"""
        self.unmeasured = ""
        """why accuracy is not measured; empty if it is measured"""

    def prepare(self) -> None:
        """Check the request and read the photos."""
        request = self.request
        if request.scale is not None and request.scale not in self.kind.scales:
            raise OptionError(
                f"--scale {request.scale}: {request.target} takes {', '.join(self.kind.scales)}"
            )
        check_installed(request.target, self.kind)
        check_writable(self.out)
        if request.bundle is not None:
            self.given = open_float(request.bundle, request.target)
            own = self.given.manifest.input
            self.width, self.height = own.width, own.height
        else:
            zoo.resolve(request.model, request.weights)
            require("quantising", "torch", "safetensors")
        self._choose_accuracy()
        if self.sources.folder is None:
            raise OptionError(
                "quantising needs photos to take ranges from: give a folder with --calibration, or"
                " a WIDER FACE root with --data"
            )
        self.photos: CalibrationSet = read_calibration(
            self.sources.folder,
            request.images,
            self.width,
            self.height,
            request.calibration_seed,
            self.progress,
            self.on_error,
            left_out(self.sources.folder, self.sources.leave_out, self.judged_photos()),
        )
        self._check_photos()

    def judged_photos(self) -> Collection[Path]:
        """The user's annotated photos, which may lie in the calibration folder."""
        own = self.validation if self.sources.annotations is not None else None
        return own.images.values() if own else ()

    def _check_photos(self) -> None:
        """Refuse calibration photos that accuracy is measured on; note if there are no others to
        measure noise on."""
        if self.validation is not None:
            known = set(self.validation.photos) & set(self.photos.sha256)
            if known:
                raise DataError(
                    f"{len(known)} of the {len(self.photos.sha256)} calibration photos are among"
                    " the photos that accuracy is measured on: give others with --calibration"
                )
        if not self.photos.held_out:
            self.note(
                "the noise of the heads is measured on the photos that ranges are taken from: the"
                " folder has no others"
            )

    def _choose_accuracy(self) -> None:
        if self._random_weights():
            self.unmeasured = "the weights are random, so AP says nothing"
        elif not self.request.accuracy:
            self.unmeasured = "left out with --no-accuracy"
        elif self.sources.data is None:
            raise OptionError(
                "the accuracy budget needs annotated photos: give WIDER FACE's root with --data,"
                " or photos of your own with --data and --annotations, or quantise without a"
                " budget with --no-accuracy"
            )
        else:
            with self.stage("reading the validation set"):
                self.validation = ValidationSet.load(self.sources.data, self.sources.annotations)
            if few := self.validation.too_few_for(self.request.max_drop):
                self.note(few)
        if self.unmeasured:
            self.note(f"accuracy is not measured and no budget is held: {self.unmeasured}")

    def _random_weights(self) -> bool:
        if self.given is not None:
            return self.given.manifest.weights.random
        if zoo.resolve(self.request.model, self.request.weights).weights is not None:
            return False
        return self.request.seed is not None or self.request.model not in zoo.names()

    def float_bundle(self, verbose: bool) -> Bundle:
        """The Bundle given in the request, or else the network exported now."""
        if self.given is not None:
            return self.given
        with self.stage(f"loading {self.request.model}"):
            from export.source import load_source

            source = load_source(self.request.model, self.request.weights, self.request.seed)
        request = ExportRequest(self.request.target, "fp32", self.width, self.height)
        return export_model(source, request, self.out, stage=self.stage, verbose=verbose).bundle

    def name(self, float_bundle: Bundle) -> str:
        """Name of the INT8 Bundle's folder."""
        return dataclasses.replace(float_bundle.manifest, precision="int8").folder_name

    def count_faces(self, float_bundle: Bundle) -> None:
        """Count the calibration photos with faces, and note if they are too few."""
        photos = self.photos.images
        with Detector(open_runner(float_bundle, self.request.threads), FACE_SCORE) as detector:
            for done, photo in enumerate(photos):
                self.progress("looking for faces in the calibration photos", done, len(photos))
                self.with_faces += len(detector.detect(photo)) > 0
        random = float_bundle.manifest.weights.random
        if self.with_faces < LEAST_WITH_FACES * len(photos) and not random:
            self.note(
                f"the float model finds a face in {self.with_faces} of {len(photos)} calibration"
                " photos: ranges that come from them may not fit photos with faces; look at what"
                " the file finds before you ship it, or give other photos with --calibration"
            )

    def quantizer(self, float_bundle: Bundle, scale: str) -> Quantizer:
        """A quantizer that has observed the photos. Raises QuantizeError if INT8 can carry no
        layer."""
        quantizer = self.kind(float_bundle, self.photos.images, scale, self.progress)
        if not quantizer.layers:
            raise QuantizeError(
                f"{float_bundle.manifest.model} has no layer that INT8 can carry on "
                f"{self.request.target} (in float: {', '.join(quantizer.float_layers) or 'all'})"
            )
        return quantizer

    def budget(
        self, float_bundle: Bundle, journal: QuantizeJournal, reference: FileAccuracy | None
    ) -> Budget:
        """The Budget with the requested ranges; without accuracy, with the default ones; else with
        the first ranges that hold it with all layers in INT8, or those that lose least."""
        noise, accuracy = self._noise_meter(float_bundle), self._accuracy_meter(float_bundle)
        asked, every = self.request.scale, self.kind.scales
        untried = tuple(scale for scale in every if asked and scale != asked)
        tried: list[tuple[float, Budget]] = []
        for scale in (asked,) if asked else every:
            if tried:
                self.progress(f"accuracy loss too high, trying {scale} ranges", 0, 1)
            quantizer = self.quantizer(float_bundle, scale)
            budget = Budget(quantizer, noise, accuracy, journal, self.progress, scale, untried)
            if reference is None or asked:
                return budget
            tried.append((worst_drop(reference, budget.accuracy(())), budget))
            if tried[-1][0] <= self.request.max_drop + ROUNDING:
                break
        return min(tried, key=lambda pair: pair[0])[1]

    def within_budget(self, float_bundle: Bundle) -> Quantization:
        """Choose ranges and the layers that stay in float, and write the Bundle."""
        name = self.name(float_bundle)
        refuse_other_weights(self.out / name, float_bundle.manifest.weights)
        journal = QuantizeJournal(
            self.out / f".{name}.journal.json", self._fingerprint(float_bundle), self.note
        )
        reference: FileAccuracy | None = None
        if self.validation is not None:
            reference = journal.remember(
                "float", FileAccuracy, lambda: self._measured(float_bundle, "measuring float")
            )
        budget = self.budget(float_bundle, journal, reference)
        accuracy: dict[str, Any] = {
            "float": None,
            "int8": None,
            "by_height": None,
            "images": 0,
            "protocol": None,
            "note": f"not measured: {self.unmeasured}",
        }
        reverted: tuple[str, ...] = ()
        if reference is not None:
            reverted = budget.hold(reference, self.request.max_drop, self.request.max_reverted)
            accuracy = _compared(reference, budget.accuracy(reverted), self.request.max_drop)
        noise = budget.noise(reverted)
        if noise.landmark_shift is not None:
            accuracy["landmark_shift"] = round(noise.landmark_shift, 4)
        accuracy |= {
            "snr_db": {head: round(db, 2) for head, db in noise.snr_db.items()},
            "reverted_layers": [layer for layer in budget.quantizer.layers if layer in reverted],
            "float_layers": list(budget.quantizer.float_layers),
        }
        bundle = self._write(name, float_bundle.manifest, budget, reverted, accuracy)
        journal.discard()
        return Quantization(bundle, float_bundle, self.request, len(budget.quantizer.layers))

    def _write(
        self,
        name: str,
        manifest: Manifest,
        budget: Budget,
        reverted: Collection[str],
        accuracy: dict[str, Any],
    ) -> Bundle:
        quantized = budget.quantized(reverted)
        calibration = {
            "method": budget.scale,
            "images": len(self.photos.images),
            "seed": self.photos.seed,
            "with_faces": self.with_faces,
            "held_out": len(self.photos.held_out),
            "sha256": list(self.photos.sha256),
        }
        manifest = dataclasses.replace(
            int8_manifest(manifest, quantized),
            tools=manifest.tools | versions(*self.kind.distributions),
            calibration=calibration,
            accuracy=accuracy,
        )
        with as_bundle(manifest, quantized) as made:
            manifest = dataclasses.replace(manifest, contract=read_contract(made))
        return write_bundle(self.out / name, manifest, named_files(manifest, quantized))

    def _noise_meter(self, float_bundle: Bundle) -> Callable[[Quantized], HeadNoise]:
        photos = self.photos.judges
        reference = heads_of(float_bundle, photos)

        def noise(quantized: Quantized) -> HeadNoise:
            manifest = int8_manifest(float_bundle.manifest, quantized)
            with as_bundle(manifest, quantized) as candidate:
                return head_noise(reference, heads_of(candidate, photos), manifest.head_layout)

        return noise

    def _accuracy_meter(self, float_bundle: Bundle) -> Callable[[Quantized, str], FileAccuracy]:
        def accuracy(quantized: Quantized, what: str) -> FileAccuracy:
            with as_bundle(int8_manifest(float_bundle.manifest, quantized), quantized) as candidate:
                return self._measured(candidate, what)

        return accuracy

    def _measured(self, bundle: Bundle, what: str) -> FileAccuracy:
        assert self.validation is not None, "asked only where accuracy is measured"
        return accuracy_of(
            bundle, self.validation, self.request.threads, what, self.progress, self.on_error
        )

    def _fingerprint(self, float_bundle: Bundle) -> str:
        """Fingerprint of all that a journal record depends on: not of ``max_drop``, so that a try
        with another budget reuses the records."""
        runtime = get_backend(self.request.target).installed()
        return fingerprint(
            edgeface=__version__,
            float=float_bundle.manifest.dumps(),
            photos=self.photos.sha256,
            judges=[hashlib.sha256(photo.tobytes()).hexdigest() for photo in self.photos.judges],
            scale=self.request.scale,
            tools=versions(*self.kind.distributions),
            runtime=runtime,
            validation=self.validation and self.validation.sha256,
        )


def _compared(reference: FileAccuracy, found: FileAccuracy, max_drop: float) -> dict[str, Any]:
    """AP for the manifest, rounded to six digits, more than any set of photos can resolve."""

    def digits(values: dict[str, float | None]) -> dict[str, float | None]:
        return {name: None if value is None else round(value, 6) for name, value in values.items()}

    return {
        "float": digits(reference.settings),
        "int8": digits(found.settings),
        "images": found.images,
        "protocol": found.protocol,
        "max_drop": max_drop,
        "by_height": {"float": digits(reference.by_height), "int8": digits(found.by_height)},
    }
