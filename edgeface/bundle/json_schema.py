"""``manifest.schema.json``: the JSON Schema (draft 2020-12) of a manifest, for programs in other
languages.

``python -m edgeface.bundle.json_schema`` writes it from the dataclasses and their docstrings. It
states the fields and their types; :meth:`Manifest.from_json` also checks their values.
"""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from edgeface.architecture import Architecture
from edgeface.bundle.manifest import READ_VERSIONS, Manifest
from edgeface.files import write_text
from edgeface.options import field_help

PATH = Path(__file__).with_name("manifest.schema.json")
SCALARS = {int: "integer", float: "number", str: "string", bool: "boolean"}


def manifest_schema() -> dict[str, Any]:
    """The schema, JSON-ready."""
    schema = _schema(Manifest)
    schema["properties"]["format_version"]["enum"] = list(READ_VERSIONS)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "manifest.json of an edgeface Bundle",
        **schema,
    }


def dumps() -> str:
    """Text of ``manifest.schema.json``."""
    return json.dumps(manifest_schema(), indent=1) + "\n"


def _schema(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Architecture:
        return {"type": "object", "description": "the network, as edgeface builds it"}
    if dataclasses.is_dataclass(hint):
        return _object(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(kind) for kind in arguments]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    if origin is tuple:
        assert arguments[1:] == (...,), "lists of one kind"
        return {"type": "array", "items": _schema(arguments[0])}
    if hint is type(None):
        return {"type": "null"}
    return {} if hint is Any else {"type": SCALARS[hint]}


def _object(cls: Any) -> dict[str, Any]:
    hints, texts = get_type_hints(cls), field_help(cls)
    properties = {
        field.name: _schema(hints[field.name]) | _description(texts.get(field.name, ""))
        for field in dataclasses.fields(cls)
    }
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return {
        "type": "object",
        **_description(cls.__doc__),
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _description(text: str) -> dict[str, str]:
    return {"description": " ".join(text.split()).replace("``", "`")} if text else {}


if __name__ == "__main__":
    write_text(PATH, dumps())
