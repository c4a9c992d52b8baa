"""Architecture: everything that defines a network, as plain data.

It is what search mutates, what the zoo and every manifest store, and what :func:`edgeface.models.build` turns into a
module. Two equal Architectures build equal graphs. This module needs nothing beyond the standard library, so a device
can read one without torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from edgeface.models.genotype import Genotype
from edgeface.records import from_fields


@dataclass(frozen=True)
class Backbone:
    """Feature extractor with outputs at strides 8, 16 and 32; those of the S3FD family at strides 4 to 128."""

    kind: str
    """convnet, plainnet, mobilenetv1 or resnetv1e; S3FD family: extd, eresfd or asfd"""
    structure: str = ""
    """plainnet: the published structure string"""
    widths: tuple[int, ...] = ()
    """output channels of the stem and of each stage"""
    depths: tuple[int, ...] = ()
    """blocks of each stage"""
    block: str = ""
    """resnetv1e: basic or bottleneck; asfd: these or depthwise"""
    activation: str = ""
    """extd: prelu, lrelu or relu"""


@dataclass(frozen=True)
class Neck:
    """Feature pyramid over the backbone's outputs."""

    kind: str
    """fpn (top-down, bilinear) or pafpn (top-down nearest, then bottom-up); S3FD family: none (the head reads the
    backbone's maps), extd, sepfpn or autofem"""
    channels: int
    genotype: Genotype | None = None
    """autofem: its operations"""
    repeats: int = 1
    """autofem: how often it follows upon itself"""


@dataclass(frozen=True)
class Head:
    """Outputs on each pyramid level: classification, boxes and, where asked for, landmarks."""

    kind: str
    """scrfd: one tower shared by the levels; plain: tower and outputs of its own on each level;
    s3fd: prior boxes on six levels, strides 4 to 128"""
    channels: int
    stack: int
    """3x3 convolutions in the tower; s3fd: in each of two, for class and box, shared by the levels"""
    norm: str = "batch"
    """batch (folds away on export) or group (as published)"""
    groups: int = 0
    """groups of the group normalisation"""
    depthwise: bool = False
    anchors: int = 1
    """boxes predicted per cell"""
    offset: float = 0.5
    """position of a cell's anchor point inside the cell, in strides"""
    prior: tuple[float, ...] = ()
    """s3fd: width and height of a prior box, in strides"""
    kernel: int = 1
    """plain and s3fd: of the output convolutions"""
    maxout: str = ""
    """s3fd: out (of three background outputs on the finest level the largest counts), or in-out (also of three face
    outputs on the other levels)"""
    dual: bool = False
    """s3fd on neck autofem: in training also reads the maps that the neck starts from"""
    landmarks: int = 0
    """points of a face that scrfd and plain also predict: 5, or 0 for none"""


@dataclass(frozen=True)
class InputNorm:
    """``(pixel - mean) / std`` on raw 0-255 RGB, inside the network."""

    mean: float | tuple[float, float, float] = 0.0
    """of all channels, or of R, G and B"""
    std: float = 255.0


FAMILY_FIELDS = {"backbone": ("activation",), "neck": ("genotype", "repeats"),
                 "head": ("prior", "kernel", "maxout", "dual", "landmarks")}
"""Part -> its fields that few networks fill in: the S3FD family, and those with landmarks"""


@dataclass(frozen=True)
class Architecture:
    """One face detector network."""

    name: str
    backbone: Backbone
    neck: Neck
    head: Head
    input: InputNorm = InputNorm()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict; :meth:`from_json` gives back an equal Architecture.

        Fields of few networks are left out where they say nothing: the text of every other network, and with it the
        names and random numbers drawn from that text, is what it was before these fields were added.
        """
        data = dataclasses.asdict(self)
        for part, names in FAMILY_FIELDS.items():
            default = {f.name: f.default for f in dataclasses.fields(getattr(self, part))}
            data[part] = {key: value for key, value in data[part].items()
                          if key not in names or value != default[key]}
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Architecture:
        """Read :meth:`to_json` output. Raises ModelError on a missing, unknown or malformed field."""
        return from_fields(cls, data, "architecture")

    def dumps(self) -> str:
        """Return the canonical text: equal Architectures give equal bytes."""
        return json.dumps(self.to_json(), indent=1, sort_keys=True)

    def named_by_content(self, family: str) -> Architecture:
        """Return the same network under a name of its own, because files are named after it: ``family``-<12 digits>."""
        content = dataclasses.replace(self, name="").dumps()
        return dataclasses.replace(self, name=f"{family}-{hashlib.sha256(content.encode()).hexdigest()[:12]}")
