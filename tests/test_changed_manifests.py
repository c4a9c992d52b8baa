"""Whatever a manifest holds, it is read or refused in one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests import a_manifest

from edgeface.bundle import MANIFEST, Bundle, Manifest, write_bundle
from edgeface.errors import BundleError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", a_manifest(), {"model.onnx": b"weights"})


def _paths(data: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    return [prefix, *(path for key, value in items for path in _paths(value, (*prefix, key)))]


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_manifest_raises_bundle_error_or_reads(bundle: Bundle, data: st.DataObject) -> None:
    whole = bundle.manifest.to_json()
    mutated: Any = copy.deepcopy(json.loads(json.dumps(whole)))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(mutated)))
        if not path:
            mutated = data.draw(JSON)
            continue
        parent = mutated
        for key in path[:-1]:
            parent = parent[key]
        if data.draw(st.booleans()) or isinstance(parent, list):
            parent[path[-1]] = data.draw(JSON)
        elif data.draw(st.booleans()):
            del parent[path[-1]]
        else:
            parent[data.draw(st.text(max_size=12))] = parent.pop(path[-1])
    _opens_or_bundle_error(bundle, json.dumps(mutated).encode())


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_bytes_raise_bundle_error_or_read(bundle: Bundle, data: st.DataObject) -> None:
    content = bytearray(bundle.manifest.dumps().encode())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _opens_or_bundle_error(bundle, bytes(content[: data.draw(st.integers(0, len(content)))]))


def _opens_or_bundle_error(bundle: Bundle, manifest: bytes) -> None:
    (bundle.path / MANIFEST).write_bytes(manifest)
    try:
        opened = Bundle.open(bundle.path)
    except BundleError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        str(error).encode("utf-8")
    else:
        assert Manifest.from_json(json.loads(opened.manifest.dumps())) == opened.manifest
