"""One specification per kind of backbone, neck and head, with only the fields that this kind uses.

As text, all kinds of a part share one flat object with a ``kind`` (:func:`flat`): fields that a
kind does not have are written with their neutral value (:data:`FLAT`). One dataclass used to hold
all kinds, and files written then still open.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from edgeface.architecture.genotype import Genotype
from edgeface.errors import ModelError
from edgeface.schema import from_fields, short


@dataclass(frozen=True)
class _Stages:
    widths: tuple[int, ...]
    """output channels of the stem and of each stage"""
    depths: tuple[int, ...]
    """blocks of each stage"""


@dataclass(frozen=True)
class _Blocks(_Stages):
    block: str
    """basic or bottleneck; asfd also accepts depthwise"""


@dataclass(frozen=True)
class ConvNetSpec(_Stages):
    """Our own backbone: outputs at strides 8, 16 and 32."""

    kind: str = field(default="convnet", init=False)


@dataclass(frozen=True)
class PlainNetSpec:
    """Backbones of DamoFD and of our searches: outputs at strides 8, 16 and 32."""

    kind: str = field(default="plainnet", init=False)
    structure: str
    """the published structure string"""


@dataclass(frozen=True)
class MobileNetSpec(_Stages):
    """Backbones of SCRFD-0.5G and -1G: outputs at strides 8, 16 and 32.

    ``widths`` starts with the first convolution, which comes before the output of the stem.
    """

    kind: str = field(default="mobilenetv1", init=False)


@dataclass(frozen=True)
class ResNetSpec(_Blocks):
    """Backbones of SCRFD-2.5G to -34G: outputs at strides 8, 16 and 32."""

    kind: str = field(default="resnetv1e", init=False)


@dataclass(frozen=True)
class EXTDSpec:
    """Backbone of EXTD: outputs at strides 4 to 128."""

    kind: str = field(default="extd", init=False)
    widths: tuple[int, ...]
    """a single entry: the width of all maps"""
    activation: str
    """prelu, lrelu or relu"""


@dataclass(frozen=True)
class EResNetSpec(_Stages):
    """Backbone of EResFD: outputs at strides 4 to 128.

    ``widths`` has two entries: one for the first two layers, one for all others.
    """

    kind: str = field(default="eresfd", init=False)


@dataclass(frozen=True)
class ASFDSpec(_Blocks):
    """Backbones of ASFD: outputs at strides 4 to 128.

    ``widths`` covers the stem and c2 to c7, ``depths`` only c2 to c5.
    """

    kind: str = field(default="asfd", init=False)


@dataclass(frozen=True)
class PyramidSpec:
    """Feature pyramid over the backbone's outputs."""

    kind: str
    """fpn (top-down, bilinear) or pafpn (top-down nearest, then bottom-up); S3FD family: none (the
    head reads the backbone's maps), extd or sepfpn"""
    channels: int


@dataclass(frozen=True)
class AutoFEMSpec:
    """Neck of ASFD, whose operations are found by a search."""

    kind: str = field(default="autofem", init=False)
    channels: int
    genotype: Genotype | None
    """the operations; a network is built only with one"""
    repeats: int = 1
    """number of copies in sequence"""


@dataclass(frozen=True)
class _DistanceHead:
    channels: int
    stack: int
    """3x3 convolutions in the tower"""
    norm: str = "batch"
    """batch (folds away on export) or group (as published)"""
    groups: int = 0
    """groups of the group normalisation"""
    depthwise: bool = False
    anchors: int = 1
    """boxes predicted per cell"""
    offset: float = 0.5
    """position of a cell's anchor point inside the cell, in strides"""
    landmarks: int = 0
    """number of landmarks predicted per face: 5, or 0 for none"""


@dataclass(frozen=True)
class PlainHeadSpec(_DistanceHead):
    """A separate tower and separate outputs on each of three levels."""

    kind: str = field(default="plain", init=False)
    kernel: int = 1
    """kernel size of the output convolutions: 1 or 3"""


@dataclass(frozen=True)
class SCRFDHeadSpec(_DistanceHead):
    """One tower and 3x3 output convolutions, shared by three levels."""

    kind: str = field(default="scrfd", init=False)


@dataclass(frozen=True)
class S3FDHeadSpec:
    """Prior boxes on six levels, strides 4 to 128: one per cell, at its centre."""

    kind: str = field(default="s3fd", init=False)
    channels: int
    stack: int
    """3x3 convolutions in each of two towers, for class and box, shared by the levels"""
    depthwise: bool = False
    prior: tuple[float, ...] = ()
    """width and height of a prior box, in strides"""
    kernel: int = 1
    """kernel size of the output convolutions"""
    maxout: str = ""
    """empty; out (the finest level takes the largest of three background outputs); or in-out (the
    other levels also take the largest of three face outputs)"""
    dual: bool = False
    """only with neck autofem: in training, the head also reads the maps that enter AutoFEM"""


Backbone = (
    ConvNetSpec | PlainNetSpec | MobileNetSpec | ResNetSpec | EXTDSpec | EResNetSpec | ASFDSpec
)
Neck = PyramidSpec | AutoFEMSpec
Head = PlainHeadSpec | SCRFDHeadSpec | S3FDHeadSpec
Spec = Backbone | Neck | Head

PYRAMIDS = ("fpn", "pafpn", "none", "extd", "sepfpn")
KINDS: dict[str, dict[str, type[Spec]]] = {
    "backbone": {
        "convnet": ConvNetSpec,
        "plainnet": PlainNetSpec,
        "mobilenetv1": MobileNetSpec,
        "resnetv1e": ResNetSpec,
        "extd": EXTDSpec,
        "eresfd": EResNetSpec,
        "asfd": ASFDSpec,
    },
    "neck": {**dict.fromkeys(PYRAMIDS, PyramidSpec), "autofem": AutoFEMSpec},
    "head": {"scrfd": SCRFDHeadSpec, "plain": PlainHeadSpec, "s3fd": S3FDHeadSpec},
}
"""part -> kind -> class of its specification"""
FLAT: dict[str, dict[str, Any]] = {
    "backbone": {"structure": "", "widths": (), "depths": (), "block": "", "activation": ""},
    "neck": {"channels": None, "genotype": None, "repeats": 1},
    "head": {
        "channels": None,
        "stack": None,
        "norm": "batch",
        "groups": 0,
        "depthwise": False,
        "anchors": 1,
        "offset": 0.5,
        "prior": (),
        "kernel": 1,
        "maxout": "",
        "dual": False,
        "landmarks": 0,
    },
}
"""part -> every field of any kind, in the order of the text, with its neutral value"""


def flat(part: str, spec: Spec) -> dict[str, Any]:
    """``spec`` as one flat, JSON-ready object; the field landmarks is left out if it is 0."""
    values = {
        "kind": spec.kind,
        **{name: getattr(spec, name, default) for name, default in FLAT[part].items()},
    }
    genotype = values.get("genotype")
    if genotype is not None:
        values["genotype"] = dataclasses.asdict(genotype)
    if not values.get("landmarks", True):
        del values["landmarks"]
    return values


def read_spec(part: str, data: Any, where: str) -> Any:
    """Read the output of :func:`flat`; fields at their neutral value may be missing.

    Raises ModelError, in one line, for an unknown kind, and for a field that the kind does not have
    unless the field has its neutral value.
    """
    if not isinstance(data, dict):
        raise ModelError(f"{where}: expected an object, got {short(data)}")
    kind, known = data.get("kind"), KINDS[part]
    if not isinstance(kind, str):
        raise ModelError(f"{where}.kind: expected a string, got {short(kind)}")
    if kind not in known:
        raise ModelError(f"{where}: unknown {part} {short(kind)} (known: {', '.join(known)})")
    cls = known[kind]
    own = {f.name for f in dataclasses.fields(cls) if f.init}
    for name, default in FLAT[part].items():
        if name in data and name not in own and _plain(data[name]) != default:
            owners = [
                k
                for k, other in known.items()
                if name in {f.name for f in dataclasses.fields(other)}
            ]
            raise ModelError(
                f"{where} {kind}: {name} is for {' and '.join(owners)} only, leave it out"
            )
    given = {
        key: value for key, value in data.items() if key in own or key not in ("kind", *FLAT[part])
    }
    return from_fields(cls, given, where)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
