"""Names and meaning of the outputs of a network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgeface.architecture.architecture import Architecture
from edgeface.architecture.specs import S3FDHeadSpec
from edgeface.architecture.strides import LANDMARKS, S3FD_STRIDES, SIZE_MULTIPLE_PX, STRIDES
from edgeface.schema import from_fields


@dataclass(frozen=True)
class HeadLayout:
    """How a network's outputs are named and what they mean."""

    strides: tuple[int, ...] = STRIDES
    anchors: int = 1
    """boxes per cell"""
    offset: float = 0.5
    """anchor point inside a cell, in strides"""
    coding: str = "distance"
    """box coding: 'distance' = left, top, right, bottom from the anchor point, in strides; 'ssd' =
    shift of the centre in prior sizes, and logarithm of size over prior size"""
    activation: str = "sigmoid"
    """what turns a cls output into a score"""
    prior: tuple[float, ...] = ()
    """only for ssd: width and height of a prior box, in strides"""
    landmarks: int = 0
    """landmarks per face, in separate outputs: 5, or 0 for none"""

    def __post_init__(self) -> None:
        increasing = all(a < b for a, b in zip(self.strides, self.strides[1:], strict=False))
        if not self.strides or not increasing or not all(0 < s <= 1024 for s in self.strides):
            raise ValueError("strides must be one or more increasing numbers of px up to 1024")
        if not 1 <= self.anchors <= 64:
            raise ValueError("anchors must be 1 to 64")
        if not 0 <= self.offset <= 1:
            raise ValueError("offset must be 0 to 1 strides")
        if self.coding not in ("distance", "ssd"):
            raise ValueError(f"unknown box coding {self.coding!r} (known: distance, ssd)")
        if len(self.prior) != (2 if self.coding == "ssd" else 0) or not all(
            0 < side <= 1024 for side in self.prior
        ):
            raise ValueError(
                "prior must be two positive numbers of strides with box coding ssd, none with"
                " distance"
            )
        if self.landmarks not in (0, LANDMARKS):
            raise ValueError(f"landmarks must be 0 or {LANDMARKS}")
        if self.activation != "sigmoid":
            raise ValueError(f"unknown activation {self.activation!r} (known: sigmoid)")

    @property
    def multiple_px(self) -> int:
        """Width and height of an input are multiples of this number of px.

        A level with a larger stride covers the remainder with one more cell.
        """
        return min(self.strides[-1], SIZE_MULTIPLE_PX)

    @property
    def channels(self) -> dict[str, int]:
        """Kind of output -> its channels, in the order of a level's outputs."""
        kinds = {"cls": self.anchors, "box": 4 * self.anchors}
        return kinds | {"kps": 2 * self.landmarks * self.anchors} if self.landmarks else kinds

    @property
    def output_names(self) -> tuple[str, ...]:
        """cls_8, box_8, (kps_8,) cls_16, box_16, ... in the order in which networks return them."""
        return tuple(f"{kind}_{s}" for s in self.strides for kind in self.channels)

    def to_fields(self) -> dict[str, Any]:
        """The form stored in manifests."""
        return self.to_json()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict; :meth:`from_json` gives back an equal HeadLayout.

        ``landmarks`` is left out if it is 0, so that the text of networks without landmarks is the
        same as before the field existed.
        """
        return {key: value for key, value in asdict(self).items() if key != "landmarks" or value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> HeadLayout:
        """Read :meth:`to_json` output.

        Raises ModelError on a missing, unknown or malformed field.
        """
        return from_fields(cls, data, "head_layout")


def head_layout(architecture: Architecture) -> HeadLayout:
    """Layout of the outputs of a network built from ``architecture``."""
    head = architecture.head
    if isinstance(head, S3FDHeadSpec):
        return HeadLayout(S3FD_STRIDES, coding="ssd", prior=head.prior)
    return HeadLayout(anchors=head.anchors, offset=head.offset, landmarks=head.landmarks)
