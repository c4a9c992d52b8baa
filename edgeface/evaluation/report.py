"""One evaluation with everything that its figures depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeface.errors import DataError
from edgeface.evaluation.wider import HEIGHT_BINS_PX, SETTINGS, OperatingPoint, WiderResult

EVALUATOR = "WIDER FACE val, official protocol (IoU 0.5, 1000 thresholds)"
ANNOTATED, EVALUATED = "annotated", "evaluated"
SCALE_NAMES = {
    "original": "original size",
    "multi": "several sizes and a flip, boxes put to a vote",
    "multi-agreed": "several sizes and a flip, boxes that two or more agree on",
}


@dataclass(frozen=True)
class EvaluationProtocol:
    """How the predictions were made: a figure without it cannot be compared with another."""

    scale: str
    """the long side of the resized images in px, such as '640', or one of SCALE_NAMES"""
    input: str
    """how images were fitted to the network's input, in words"""
    score_threshold: float
    """predictions below it were dropped"""
    nms: float
    """IoU above which the weaker box was dropped"""
    runtime: str
    """package and version that ran the model"""
    heights: str = ANNOTATED
    """unit of the height bins: px of the original image ('annotated') or of the 'evaluated' one"""
    evaluator: str = EVALUATOR

    def __str__(self) -> str:
        scale = SCALE_NAMES.get(self.scale, f"long side {self.scale}")
        thresholds = f"score >= {self.score_threshold:g}, NMS IoU {self.nms:g}"
        return f"{scale} ({self.input}), {thresholds}, {self.runtime}; {self.evaluator}"


@dataclass(frozen=True)
class Report:
    """AP of one model; None where no face counts.

    ``by_height`` splits the faces of the hard setting.
    """

    model: str
    protocol: EvaluationProtocol
    images: int
    easy: float | None
    medium: float | None
    hard: float | None
    by_height: dict[str, float | None]
    faces: dict[str, int]
    """counting faces per setting and height bin"""
    operating_points: tuple[OperatingPoint, ...] = ()
    """on the hard setting, at each score from the protocol's threshold upwards; empty in reports of
    earlier versions"""

    @classmethod
    def of(cls, model: str, protocol: EvaluationProtocol, result: WiderResult) -> Report:
        """Combine a result with its model and protocol."""
        ap = {setting: getattr(result, setting) for setting in SETTINGS}
        points = result.operating_points
        return cls(
            model,
            protocol,
            result.images,
            **ap,
            by_height=result.by_height,
            faces=result.faces,
            operating_points=tuple(p for p in points if p.score >= protocol.score_threshold),
        )

    def to_json(self) -> dict[str, Any]:
        """One flat object: model, scale, input, score_threshold, nms, evaluator, images, easy,
        medium, hard, by_height, faces, operating_points ..."""
        values = asdict(self)
        return {"model": values.pop("model"), **values.pop("protocol"), **values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """Inverse of :meth:`to_json`.

        Raises DataError for a missing or unknown field.
        """
        values = dict(data)
        try:
            settings = {name: values.pop(name) for name in EvaluationProtocol.__dataclass_fields__}
            points = tuple(OperatingPoint(**each) for each in values.pop("operating_points", ()))
            return cls(protocol=EvaluationProtocol(**settings), **values, operating_points=points)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"not an evaluation report ({error}); accepted: what edgeface eval --format json"
                " prints"
            ) from error


POINT_COLUMNS = ("score from", "precision", "false an image", "recall", *HEIGHT_BINS_PX)


def point_rows(points: Iterable[Mapping[str, Any]]) -> list[tuple[str | None, ...]]:
    """Operating points of :meth:`Report.to_json` as rows under POINT_COLUMNS."""
    return [
        (
            f"{point['score']:.1f}",
            _share(point["precision"]),
            f"{point['false_boxes']:.2f}",
            _share(point["recall"]),
            *map(_share, point["recall_by_height"].values()),
        )
        for point in points
    ]


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
