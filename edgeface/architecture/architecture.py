"""Architecture: everything that defines a network, as plain data.

Searches mutate it, the zoo and every manifest store it, and :func:`edgeface.models.build` turns it
into a module. Two equal Architectures build equal graphs. This module needs only the standard
library, so that a device can read an Architecture without torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from edgeface.architecture.specs import FLAT, Backbone, Head, Neck, PlainNetSpec, flat, read_spec
from edgeface.errors import ModelError
from edgeface.schema import read_fields, short

PARTS = ("backbone", "neck", "head")
SPARE = {
    "backbone": ("activation",),
    "neck": ("genotype", "repeats"),
    "head": ("prior", "kernel", "maxout", "dual"),
}
"""part -> fields that few networks, mainly the S3FD family, use: the short text leaves them out at
their neutral value (:data:`FLAT`)"""


@dataclass(frozen=True)
class InputNorm:
    """``(pixel - mean) / std`` on raw 0-255 RGB, inside the network."""

    mean: float | tuple[float, float, float] = 0.0
    """one mean for all channels, or the means of R, G and B"""
    std: float = 255.0


@dataclass(frozen=True)
class Architecture:
    """One face detector network."""

    name: str
    backbone: Backbone
    neck: Neck
    head: Head
    input: InputNorm = InputNorm()

    @property
    def structure(self) -> str:
        """Structure string of a plainnet; empty for other backbones."""
        return self.backbone.structure if isinstance(self.backbone, PlainNetSpec) else ""

    def to_fields(self) -> dict[str, Any]:
        """The long text, stored in manifests, latency tables and searches: fields of all kinds."""
        parts = {part: flat(part, getattr(self, part)) for part in PARTS}
        return {"name": self.name, **parts, "input": dataclasses.asdict(self.input)}

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict; :meth:`from_json` gives back an equal Architecture.

        This is the short text: it leaves out the fields of :data:`SPARE` at their neutral value. So
        the text of networks that do not use them is the same as before these fields existed, and so
        are the names and random numbers derived from it.
        """
        data = self.to_fields()
        for part, names in SPARE.items():
            data[part] = {
                key: value
                for key, value in data[part].items()
                if key not in names or value != FLAT[part][key]
            }
        return data

    @classmethod
    def from_json(cls, data: Any) -> Architecture:
        """Read either text. Raises ModelError on a missing, unknown or malformed field."""
        return cls.from_fields(data, "architecture")

    @classmethod
    def from_fields(cls, data: Any, where: str) -> Architecture:
        """Like :meth:`from_json`; error messages begin with ``where``."""
        if not isinstance(data, dict):
            raise ModelError(f"{where}: expected an object, got {short(data)}")
        specs = {
            part: read_spec(part, data[part], f"{where}.{part}") for part in PARTS if part in data
        }
        rest = {key: value for key, value in data.items() if key not in PARTS}
        return read_fields(cls, {**rest, **specs}, where)

    def dumps(self) -> str:
        """Return the canonical text: equal Architectures give equal bytes."""
        return json.dumps(self.to_json(), indent=1, sort_keys=True)

    def named_by_content(self, family: str) -> Architecture:
        """Return the same network as ``family``-<12 hexadecimal digits of a hash of its content>.

        Files are named after a network, so different networks need different names.
        """
        content = dataclasses.replace(self, name="").dumps()
        return dataclasses.replace(
            self, name=f"{family}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
        )
