"""Read and write the ``.param`` file of an ncnn model: its layers without their weights."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from edgeface.errors import ModelError
from edgeface.formats.ncnn_layers import (
    ACTIVATION_VALUES,
    KINDS,
    REQUIRED,
    NcnnLayer,
    Param,
    refused,
)
from edgeface.schema import short

MAGIC = 7767517
MAX_PARAM_BYTES = 4 << 20
MAX_LAYERS = 5_000

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_INT = re.compile(r"-?[0-9]{1,10}")
_FLOAT = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?(e[+-]?[0-9]{1,2})?")
"""at most nine decimals: ncnn's reader counts them in 32 bits, which a tenth would overflow"""
_VALUE_CHARACTERS = 15
"""length at which ncnn's reader cuts a value off"""
_ARRAY = -23300
"""a list under id k is written with the id -23300 - k: id 10 as -23310=count,value,..."""


def parse_param(content: bytes) -> tuple[NcnnLayer, ...]:
    """Read the ``.param`` file: layers without their weights. Raises ModelError if malformed."""
    if len(content) > MAX_PARAM_BYTES:
        raise ModelError(
            f"an ncnn .param file of {len(content)} bytes: accepted are at most"
            f" {MAX_PARAM_BYTES >> 20} MiB"
        )
    if any(byte != 0x0A and not 0x20 <= byte < 0x7F for byte in set(content)):
        raise ModelError(
            "an ncnn .param file holds bytes that are no plain text: a .param file in ncnn's binary"
            " form, or not one at all"
        )
    lines = content.decode("ascii").split("\n")
    if lines[0].strip() != str(MAGIC) or len(lines) < 2:
        raise ModelError(
            f"an ncnn .param file starts with {MAGIC}, this one with {short(lines[0])}"
        )
    body = [line for line in lines[2:] if line.strip()]
    counts = [_integer(token, "the second line") for token in lines[1].split()]
    layers = tuple(_parse_line(line) for line in body[:MAX_LAYERS])
    blobs = sum(len(layer.tops) for layer in layers)
    if counts != [len(body), blobs] or not 0 < len(body) <= MAX_LAYERS:
        raise ModelError(
            f"the ncnn .param file announces {short(lines[1])} layers and blobs, it has {len(body)}"
            f" and {blobs}"
        )
    _check_graph(layers)
    return layers


def write_param(layers: Sequence[NcnnLayer]) -> bytes:
    """Return the text that :func:`parse_param` reads; equal layers give equal bytes."""
    blobs = sum(len(layer.tops) for layer in layers)
    lines = [str(MAGIC), f"{len(layers)} {blobs}"]
    for layer in layers:
        head = f"{layer.type:<24} {layer.name:<24} {len(layer.bottoms)} {len(layer.tops)}"
        params = (_write_param(key, layer.params[key]) for key in sorted(layer.params))
        lines.append(" ".join((head, *layer.bottoms, *layer.tops, *params)))
    return "\n".join((*lines, "")).encode("ascii")


def _parse_line(line: str) -> NcnnLayer:
    tokens = line.split()
    if len(tokens) < 4 or not all(_NAME.fullmatch(token) for token in tokens[:2]):
        raise ModelError(
            f"an ncnn layer is written 'type name bottoms tops ...', not {short(line)}"
        )
    kind, name = tokens[:2]
    if kind not in KINDS:
        raise ModelError(
            f"ncnn layer {short(name)} has the type {short(kind)} (known: {', '.join(KINDS)})"
        )
    bottoms, tops = (_integer(token, short(name)) for token in tokens[2:4])
    known = KINDS[kind]
    if not (
        known.bottoms[0] <= bottoms <= known.bottoms[1] and known.tops[0] <= tops <= known.tops[1]
    ):
        raise ModelError(f"ncnn {kind} {short(name)}: {bottoms} bottoms and {tops} tops")
    names, rest = tokens[4 : 4 + bottoms + tops], tokens[4 + bottoms + tops :]
    if len(names) != bottoms + tops or not all(_NAME.fullmatch(blob) for blob in names):
        raise ModelError(
            f"ncnn {kind} {short(name)}: {bottoms + tops} names of blobs are to follow its counts"
        )
    layer = NcnnLayer(
        kind, name, tuple(names[:bottoms]), tuple(names[bottoms:]), _parse_params(rest, kind, name)
    )
    _check_params(layer)
    return layer


def _parse_params(tokens: Sequence[str], kind: str, name: str) -> dict[int, Param]:
    params: dict[int, Param] = {}
    for token in tokens:
        key, equals, text = token.partition("=")
        number = _integer(key, short(name))
        value: Param
        if number <= _ARRAY:
            number, (count, *items) = _ARRAY - number, text.split(",")
            value = tuple(_value(item, name) for item in items)
            if _integer(count, short(name)) != len(value):
                raise ModelError(
                    f"ncnn {kind} {short(name)}: the list {short(token)} has {len(value)} values"
                )
        else:
            value = _value(text, name)
        if not equals or number in params or number not in KINDS[kind].params:
            raise ModelError(
                f"ncnn {kind} {short(name)}: parameter {short(token)} is unknown or given twice"
            )
        params[number] = value
    return params


def _check_params(layer: NcnnLayer) -> None:
    """Raise ModelError unless all required parameters are there, in range and consistent."""
    for key, value in layer.params.items():
        if not KINDS[layer.type].params[key].accepts(value):
            raise refused(layer, f"parameter {key} = {short(value)}")
    for key in REQUIRED.get(layer.type, ()):
        if key not in layer.params:
            raise refused(layer, f"no parameter {key}")
    values = layer.params.get(10, ())
    assert isinstance(values, tuple)
    if 9 in KINDS[layer.type].params and len(values) != ACTIVATION_VALUES[layer.integer(9)]:
        raise refused(layer, f"activation {layer.integer(9)} with {len(values)} parameters")


def _check_graph(layers: Sequence[NcnnLayer]) -> None:
    """Raise ModelError unless the layers form a graph with one Input and unique names.

    Each blob is written once, before it is read, and read at most once (Split copies blobs).
    """
    names: set[str] = set()
    written: set[str] = set()
    read: set[str] = set()
    for layer in layers:
        if layer.name in names:
            raise refused(layer, "a name that another layer has")
        names.add(layer.name)
        for blob in layer.bottoms:
            if blob not in written or blob in read:
                raise refused(
                    layer,
                    f"bottom {short(blob)}, which "
                    f"{'two layers read' if blob in read else 'no layer before it writes'}",
                )
            read.add(blob)
        for blob in layer.tops:
            if blob in written:
                raise refused(layer, f"top {short(blob)}, which is written twice")
            written.add(blob)
    if sum(layer.type == "Input" for layer in layers) != 1:
        raise ModelError("an ncnn model of ours has exactly one Input layer")


def _write_param(key: int, value: Param) -> str:
    if isinstance(value, tuple):
        return f"{_ARRAY - key}={','.join((str(len(value)), *map(_write_value, value)))}"
    return f"{key}={_write_value(value)}"


def _write_value(value: int | float) -> str:
    """Write an integer, or a float with the fewest digits that give the same float32.

    The text of a float contains a point or an ``e``, by which ncnn tells floats from integers.
    """
    if isinstance(value, int):
        return str(value)
    text = str(np.float32(value))
    if not _FLOAT.fullmatch(text):
        text = np.format_float_scientific(np.float32(value))
    assert _FLOAT.fullmatch(text) and len(text) <= _VALUE_CHARACTERS, text
    return text


def _value(text: str, name: str) -> int | float:
    if len(text) <= _VALUE_CHARACTERS:
        if _INT.fullmatch(text):
            return _integer(text, short(name))
        if _FLOAT.fullmatch(text):
            return float(np.float32(text)) if abs(float(text)) < 3e38 else _refuse(text, name)
    return _refuse(text, name)


def _integer(text: str, where: str) -> int:
    value = int(text) if _INT.fullmatch(text) else None
    if value is None or not -(1 << 31) <= value < 1 << 31:
        raise ModelError(f"ncnn .param, {where}: expected a whole number, got {short(text)}")
    return value


def _refuse(text: str, name: str) -> float:
    raise ModelError(
        f"ncnn layer {short(name)}: expected a number of at most {_VALUE_CHARACTERS} characters,"
        f" got {short(text)}"
    )
