"""Make a detector from the front of a search.

The chosen network is trained in full, exported or quantised for the search's target and precision,
and the resulting file is measured on the search's device and photos. detector.json in the search's
folder names the Bundle and holds its AP, its latency in ms and the record of the search that found
it. After a stop at any moment, the work resumes where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface import checkout
from edgeface.architecture import Architecture, PlainHeadSpec
from edgeface.architecture.strides import LANDMARKS
from edgeface.bundle import Bundle
from edgeface.errors import EdgefaceError, OptionError, QuantizeError, counted
from edgeface.files import read_regular, write_text
from edgeface.latency.devices import open_device
from edgeface.latency.measurement import Measurement
from edgeface.latency.protocol import Job, Protocol
from edgeface.schema import from_fields
from edgeface.search.options import DETECTOR, FREE, StudyOptions
from edgeface.search.results import FrontNet
from edgeface.search.trials.photos import parted, plan_of
from edgeface.search.trials.training import Plan
from edgeface.training.options import TrainOptions
from edgeface.types import Note, Progress, Stage, unnoted, unseen

if TYPE_CHECKING:
    from edgeface.images.reading import OnError

RUN, FILES = "training", "detector"
"""folders of the training and of the Bundles"""
ANY_DROP = 100.0
"""AP points: any loss is accepted"""


@dataclass(frozen=True)
class Finished:
    """The detector that a search produced."""

    bundle: str
    """its folder, relative to that of the search"""
    ap: dict[str, float | None]
    """easy, medium and hard, 0 to 1; on a user's own photos, hard counts all faces"""
    protocol: str
    """evaluation protocol, in words"""
    network_ms: float
    """median network time"""
    p90_ms: float
    valid: bool
    """may the latency be quoted?"""
    device: str
    crops: int
    """number of crops in its training"""
    found: dict[str, Any]
    """the network's entry in the front"""
    search: dict[str, Any]
    """options of the search"""
    judged: str
    """SHA-256 over the faces and photos (key, size, modification time) that AP was measured on"""


def choose(front: Sequence[FrontNet]) -> FrontNet:
    """The network with the best score; the whole front keeps the limits. Raises OptionError if it
    is empty."""
    if not front:
        raise OptionError(
            "--finish: the front is empty, no network kept the limits: search with a larger budget,"
            " or more --rounds"
        )
    return max(front, key=lambda net: net.score)


def finish(
    options: StudyOptions,
    folder: Path,
    front: Sequence[FrontNet],
    samples: int,
    landmarks: Path | None,
    progress: Progress,
    note: Note,
    on_error: OnError | None = None,
    stage: Stage = contextlib.nullcontext,
) -> Finished | None:
    """Train the chosen network with ``samples`` crops and make a measured file of it; None if the
    training was stopped. An earlier file of the same training, with AP on the same photos, is kept;
    only its latency is measured again, unless it was measured on a quiet machine.

    landmarks: file with the landmarks of the annotated faces; None: the detector has none.
    on_error: called for photos that cannot be read, which are left out. Raises what :func:`check`,
    training, export and evaluation raise.
    """
    from edgeface.training import train_model
    from edgeface.training.start import WEIGHTS

    check(options, landmarks)
    net, run = choose(front), folder / RUN
    recipe = TrainOptions(samples=samples, seed=options.seed)
    # The trials' cache holds annotations without landmarks: a training with landmarks has its own.
    plan = plan_of(run if landmarks else folder, *_photos(options), recipe, landmarks)
    trained = Path(plan.annotations) if plan.annotations else None
    network = with_landmarks(net.architecture) if landmarks else net.architecture
    data = Path(plan.data)
    note(f"training {network.name}, {samples} crops, in {run}")
    with _resumable(run):
        done = train_model(
            network,
            recipe,
            data,
            run,
            trained,
            Path(plan.cache),
            landmarks=None if plan.kept else landmarks,
            progress=progress,
            note=note,
            on_error=on_error,
        )
    if not done:
        return None
    weights, files = run / WEIGHTS, folder / FILES
    found = _known(options, folder, net, samples, plan)
    if found is None:
        bundle = _file(options, net.size, plan, weights, files, note, on_error, progress, stage)
        found = _measured(options, folder, net, samples, plan, bundle, progress, on_error)
    elif found.valid:
        note(f"{folder / DETECTOR} is of this training and these photos: nothing is made again")
    else:
        timed = _timed(options, Bundle.open(folder / found.bundle), progress)
        found = _kept(folder, dataclasses.replace(found, **_latency(timed)))
    if 0 < options.budget_ms < found.network_ms:
        note(
            f"the file takes {found.network_ms:.2f} ms, more than --budget-ms"
            f" {options.budget_ms:g}: landmarks and layers kept in float take time that the search"
            " did not measure; search again with a smaller budget"
        )
    return found


def _known(
    options: StudyOptions, folder: Path, net: FrontNet, samples: int, plan: Plan
) -> Finished | None:
    """The detector made before; None if anything has changed since or a photo was left out."""
    from edgeface.training.start import WEIGHTS, init_sha256

    try:
        data = json.loads(read_regular(folder / DETECTOR))
        known = from_fields(Finished, data, DETECTOR)
        weights = Bundle.open(folder / known.bundle).manifest.weights
    except (OSError, ValueError, RecursionError, EdgefaceError):
        return None
    judged, photos = _judged(plan)
    asked = dataclasses.asdict(options.written) | {name: known.search.get(name) for name in FREE}
    made = (known.crops, known.judged, known.found.get("size"), known.search, weights.sha256)
    wanted = (samples, judged, net.size, asked, init_sha256(str(folder / RUN / WEIGHTS)))
    whole = known.protocol.startswith(f"{counted(photos, 'photo')}, ")
    return known if whole and json.dumps(made) == json.dumps(wanted) else None


def _judged(plan: Plan) -> tuple[str, int]:
    """Digest of the photos that AP is measured on, and their number."""
    from edgeface.evaluation.predict import annotated_photos

    truth, photos = annotated_photos(plan.validation, plan.kept)
    digest = hashlib.sha256()
    for key, path in sorted(photos.items()):
        faces, found = truth.images[key], path.stat()
        digest.update(f"{key} {found.st_size} {found.st_mtime_ns}\n".encode())
        digest.update(faces.boxes.tobytes() + faces.counts["hard"].tobytes())
    return digest.hexdigest(), len(photos)


def check(options: StudyOptions, landmarks: Path | None, progress: Progress = unseen) -> None:
    """Check before a search what finishing it needs. Raises OptionError if nothing can be trained
    or made, DataError for photos, annotations or ``landmarks`` that cannot be used."""
    from edgeface.evaluation.own import check_inside, judged_photos
    from edgeface.evaluation.predict import annotated_photos
    from edgeface.training import read_photos

    if not options.data:
        raise OptionError(
            "--finish needs photos to train on: give --data, WIDER FACE's folder, or one of photos"
            " with --annotations"
        )
    checkout.check()
    data, annotations = _photos(options)
    own = parted(data, annotations, landmarks)
    read_photos(data, annotations, landmarks)
    if own is None:
        annotated_photos(data)
        return
    # Otherwise these photos are only opened after the training. Unreadable ones are reported then.
    kept = f"{annotations}, the photos that are kept aside for AP"
    check_inside(*judged_photos(own[1], kept, data), unnoted, progress)


@contextlib.contextmanager
def _resumable(run: Path) -> Iterator[None]:
    """Tell how to train anew if the training cannot resume, because another network or other
    photos are asked for: a search's folder has only one training."""
    from edgeface.training.resume import OtherRunError

    try:
        yield
    except OtherRunError as error:
        raise OptionError(f"{error}; or delete {run}, and --finish trains anew") from None


def _photos(options: StudyOptions) -> tuple[Path, Path | None]:
    return Path(options.data), Path(options.annotations) if options.annotations else None


def with_landmarks(architecture: Architecture) -> Architecture:
    """The same network with five landmarks: one more output of its head."""
    head = architecture.head
    assert isinstance(head, PlainHeadSpec)
    family = architecture.name.partition("-")[0]
    changed = dataclasses.replace(architecture, head=dataclasses.replace(head, landmarks=LANDMARKS))
    return changed.named_by_content(family)


def _file(
    options: StudyOptions,
    size: str,
    plan: Plan,
    weights: Path,
    out: Path,
    note: Note,
    on_error: OnError | None,
    progress: Progress = unseen,
    stage: Stage = contextlib.nullcontext,
) -> Bundle:
    int8 = options.precision == "int8"
    precision = "fp32" if int8 else options.precision
    made = checkout.export(
        str(weights), options.target, precision=precision, size=size, out=out, stage=stage
    )
    if not int8:
        return made
    quantize = functools.partial(
        checkout.quantize,
        made,
        data=plan.data,
        annotations=plan.kept,
        on_error=on_error,
        stage=stage,
        progress=progress,
        note=functools.cache(note),  # a second quantisation repeats its notes
    )
    try:
        return quantize()
    except QuantizeError as error:
        # After hours of training, a file that loses more AP and says how much is better than none.
        # It has the ranges that lose least, and no layer in float: the search measured such files.
        # The second quantisation reuses the measurements of the first.
        note(f"{error}; made all the same, its manifest says what it loses")
        lost = error.all_int8_drop
        return quantize(max_drop=ANY_DROP if lost is None else lost)


def _measured(
    options: StudyOptions,
    folder: Path,
    net: FrontNet,
    samples: int,
    plan: Plan,
    bundle: Bundle,
    progress: Progress,
    on_error: OnError | None,
) -> Finished:
    from edgeface.evaluation import evaluate_model

    report = evaluate_model(
        bundle.path,
        plan.validation,
        annotations=plan.kept,
        progress=progress,
        on_error=on_error,
    ).report
    found = Finished(
        bundle=bundle.path.relative_to(folder).as_posix(),
        ap={name: getattr(report, name) for name in ("easy", "medium", "hard")},
        protocol=f"{counted(report.images, 'photo')}, {report.protocol}",
        **_latency(_timed(options, bundle, progress)),
        crops=samples,
        found=net.to_json(),
        search=dataclasses.asdict(options.written),
        judged=_judged(plan)[0],
    )
    return _kept(folder, found)


def _latency(record: Measurement) -> dict[str, Any]:
    """The latency fields of :class:`Finished`."""
    return {
        "network_ms": record.network_ms.median,
        "p90_ms": record.network_ms.p90,
        "valid": record.valid,
        "device": record.device,
    }


def _kept(folder: Path, found: Finished) -> Finished:
    write_text(folder / DETECTOR, json.dumps(dataclasses.asdict(found), indent=1) + "\n")
    return found


def _timed(options: StudyOptions, bundle: Bundle, progress: Progress) -> Measurement:
    protocol = dataclasses.replace(Protocol(), max_load=options.max_load)
    with open_device(options.device) as device:
        (record,) = device.measure(
            [Job(str(bundle.path.resolve()), options.threads)], protocol, progress=progress
        )
    return record
