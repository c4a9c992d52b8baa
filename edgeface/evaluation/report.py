"""One evaluation with everything that its figures depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeface.errors import DataError
from edgeface.evaluation.wider import SETTINGS, WiderResult

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
    """what the network was given, in words"""
    score_threshold: float
    """predictions below it were dropped"""
    nms: float
    """IoU above which the weaker box was dropped"""
    runtime: str
    """package and version that ran the model"""
    heights: str = ANNOTATED
    """what the height bins measure: 'annotated' px of the original image, or px of the 'evaluated'
    one"""
    evaluator: str = EVALUATOR

    def __str__(self) -> str:
        scale = SCALE_NAMES.get(self.scale, f"long side {self.scale}")
        thresholds = f"score >= {self.score_threshold:g}, NMS IoU {self.nms:g}"
        return f"{scale} ({self.input}), {thresholds}, {self.runtime}; {self.evaluator}"


@dataclass(frozen=True)
class Report:
    """AP of one model; None where no face counts. ``by_height`` splits the faces of the hard
    setting."""

    model: str
    protocol: EvaluationProtocol
    images: int
    easy: float | None
    medium: float | None
    hard: float | None
    by_height: dict[str, float | None]
    faces: dict[str, int]
    """counting faces per setting and height bin"""

    @classmethod
    def of(cls, model: str, protocol: EvaluationProtocol, result: WiderResult) -> Report:
        """Put a result and its circumstances together."""
        ap = {setting: getattr(result, setting) for setting in SETTINGS}
        return cls(
            model, protocol, result.images, **ap, by_height=result.by_height, faces=result.faces
        )

    def to_json(self) -> dict[str, Any]:
        """One flat object: model, scale, input, score_threshold, nms, evaluator, images, easy,
        medium, hard, ..."""
        values = asdict(self)
        return {"model": values.pop("model"), **values.pop("protocol"), **values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """Inverse of :meth:`to_json`. Raises DataError unless the fields are those and no
        others."""
        values = dict(data)
        try:
            settings = {name: values.pop(name) for name in EvaluationProtocol.__dataclass_fields__}
            return cls(protocol=EvaluationProtocol(**settings), **values)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"not an evaluation report ({error}); accepted: what edgeface eval --format json"
                " prints"
            ) from error
