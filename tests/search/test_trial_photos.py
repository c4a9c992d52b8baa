"""Own photos in a search: which are trained on, which are kept aside, and that their faces count as
in `edgeface train` and `edgeface eval`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgeface.architecture import get_architecture
from edgeface.errors import DataError, ImageError
from edgeface.images.annotated import AnnotatedImage
from edgeface.images.annotations import read_annotations

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("torch", reason="torch is not installed")

from small_runs import quick

from edgeface.evaluation.predict import annotated_photos
from edgeface.search.scores.ddsar import weights_of_annotations
from edgeface.search.trials.photos import KEPT, TRAINED, kept_aside, plan_of, write_annotations
from edgeface.search.trials.training import prepare, recipe, train_briefly
from edgeface.training import open_photos


def test_photos_kept_aside_are_not_trained_on(photos: tuple[Path, Path], tmp_path: Path) -> None:
    data, annotations = photos
    plan = plan_of(tmp_path, data, annotations, recipe(64))
    trained, kept = (read_annotations(tmp_path / name) for name in (TRAINED, KEPT))
    paths = [{i.path for i in images} for images in (trained, kept)]
    assert plan.kept == str(tmp_path / KEPT) and plan.annotations == str(tmp_path / TRAINED)
    assert len(kept) == 10 and not paths[0] & paths[1]
    assert paths[0] | paths[1] == {i.path for i in read_annotations(annotations)}
    assert paths[1] == kept_aside(read_annotations(annotations)[::-1])


@pytest.mark.parametrize("kind", ["csv", "points", "invalid", "invalid points", "twice"])
def test_annotations_are_written_as_they_are_read(kind: str, tmp_path: Path) -> None:
    """This includes faces to ignore, even of zero size, and a box that occurs twice, once with
    landmarks."""
    boxes = np.array([[1, 2, 30.5, 40], [5, 5, 6, 9], [7.25, 8, 7.25, 9]], np.float32)
    boxes = boxes[[0, 1, 0]] if kind == "twice" else boxes if "invalid" in kind else boxes[:2]
    points = np.full((len(boxes), 5, 2), np.nan, np.float32)
    points[0] = np.arange(10).reshape(5, 2) - 1
    invalid = np.arange(len(boxes)) > (0 if "invalid" in kind else 9)
    pointed = kind not in ("csv", "invalid")
    images = [
        AnnotatedImage("a b/c.jpg", boxes, invalid, points if pointed else None),
        AnnotatedImage("none.jpg", boxes[:0], invalid[:0], points[:0] if pointed else None),
    ]
    path = write_annotations(tmp_path / "w.csv", images)
    assert path.suffix == (".csv" if kind in ("csv", "points") else ".txt")
    first, second = read_annotations(path)
    assert (first.path, second.path, len(second.boxes)) == ("a b/c.jpg", "none.jpg", 0)
    assert np.array_equal(first.boxes, boxes) and np.array_equal(first.invalid, invalid)
    wanted = points if pointed else np.full_like(points, np.nan)
    if kind == "csv":
        assert first.landmarks is None
    else:
        assert first.landmarks is not None
        assert np.array_equal(first.landmarks, wanted, equal_nan=True)


def test_faces_marked_invalid_are_ignored_as_everywhere(
    photos: tuple[Path, Path], tmp_path: Path
) -> None:
    """Trials ignore them like `edgeface train`, the AP like `edgeface eval`, and the weights of
    stages leave them out."""
    lines, invalid = list[str](), (0, 0, 40, 30)
    for image in read_annotations(photos[1]):
        x1, y1, x2, y2 = image.boxes[0].tolist()
        rows = [(x1, y1, x2 - x1, y2 - y1, *[0] * 6), (*invalid, 0, 0, 0, 1, 0, 0)]
        lines += [image.path, "2", *(" ".join(map(str, row)) for row in rows)]
    wider = tmp_path / "faces.txt"
    wider.write_text("\n".join([*lines, ""]))
    assert weights_of_annotations(wider) == weights_of_annotations(photos[1])
    plan = plan_of(tmp_path, photos[0], wider, recipe(64))
    assert plan.annotations and plan.kept
    learned = open_photos(photos[0], Path(plan.annotations), tmp_path / "cache")
    assert learned.ignore.tolist() == [False, True] * 40
    assert learned.boxes[1].tolist() == [*invalid]
    truth, _ = annotated_photos(plan.validation, plan.kept)
    assert [f.counts["hard"].tolist() for f in truth.images.values()] == [[True, False]] * 10


def test_nothing_to_measure_on(photos: tuple[Path, Path], tmp_path: Path) -> None:
    data, annotations = photos
    with pytest.raises(DataError, match=r"no eval_tools/ground_truth .* or --annotations FILE"):
        plan_of(tmp_path, data, None, recipe(64))
    few = tmp_path / "few.csv"
    few.write_text("".join(annotations.read_text().splitlines(keepends=True)[:20]))
    with pytest.raises(DataError, match="has 19 photos, accepted for trials: 50 at least"):
        plan_of(tmp_path, data, few, recipe(64))
    assert not (tmp_path / TRAINED).exists()


def test_photos_that_cannot_be_read_are_told_and_left_out(
    photos: tuple[Path, Path], tmp_path: Path
) -> None:
    """As in `edgeface train`. One damaged photo is trained on, one is kept aside."""
    data = shutil.copytree(photos[0], tmp_path / "photos")
    plan = quick(plan_of(tmp_path, data, photos[1], recipe(64)))
    trained, kept = (read_annotations(tmp_path / name)[0].path for name in (TRAINED, KEPT))
    for name in (trained, kept):
        (data / name).write_bytes((data / name).read_bytes()[:900])
    with pytest.raises(ImageError, match="truncated"):
        prepare(plan)
    told: list[str] = []
    prepare(plan, lambda error: told.append(str(error)))
    assert len(told) == 2 and kept in told[0] and trained in told[1]
    found = train_briefly(plan, get_architecture("edgeface-n"))
    assert found is not None and found.protocol.startswith("9 photos")


def test_boxes_outside_a_kept_photo_are_refused_before_the_trials(
    photos: tuple[Path, Path], tmp_path: Path
) -> None:
    plan = quick(plan_of(tmp_path, *photos, recipe(64)))
    kept = tmp_path / KEPT
    name = read_annotations(kept)[-1].path
    kept.write_text(kept.read_text() + f"{name},900,900,999,999\n")
    with pytest.raises(DataError, match=rf"{name}: box .* = 900, .* lies outside the image of"):
        prepare(plan)
