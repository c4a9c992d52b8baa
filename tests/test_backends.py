"""The capability table: every row is whole, and every combination is either on or has a reason."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edgeface.backends import (
    BACKENDS,
    PRECISIONS,
    check_combination,
    combinations,
    export_targets,
    get_backend,
    import_runtime,
)
from edgeface.errors import MissingExtraError, OptionError
from edgeface.runners import Runner


@pytest.mark.parametrize("target", BACKENDS)
def test_rows_are_whole(target: str) -> None:
    row = BACKENDS[target]
    assert row.target == target and re.fullmatch(r"\.[a-z]+", row.suffix)
    assert len(row.packages) == len(row.distributions) > 0
    assert set(row.off) <= set(PRECISIONS) and all(len(reason) > 10 for reason in row.off.values())
    assert bool(row.precisions) == (row.runner is not None) == (row.exporter is not None)


def test_what_is_on() -> None:
    assert export_targets() == ("onnx", "tflite")
    assert combinations() == [("onnx", "fp32"), ("onnx", "fp16"), ("tflite", "fp32"), ("tflite", "fp16")]


@pytest.mark.parametrize("target", export_targets())
def test_import_paths_resolve(target: str) -> None:
    row = BACKENDS[target]
    runner: Any = row.load_runner()
    assert issubclass(runner, Runner)
    pytest.importorskip("torch")
    assert callable(row.load_exporter("fp32"))
    installed = row.installed()
    assert installed is not None and installed[0] in row.distributions


@pytest.mark.parametrize(
    ("target", "precision", "message"),
    [
        ("coreml", "fp32", r"unknown target 'coreml' \(known: onnx, tflite\)"),
        ("onnx", "fp8", r"unknown precision 'fp8' \(known: fp32, fp16, int8\)"),
        ("onnx", "int8", "onnx int8 is off: no quantizer yet"),
        ("ncnn", "fp32", "ncnn fp32 is off: no ncnn exporter yet"),
    ],
)
def test_combinations_that_are_off(target: str, precision: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_combination(target, precision)


def test_load_where_off() -> None:
    with pytest.raises(OptionError, match="'openvino' is off"):
        get_backend("openvino").load_runner()
    with pytest.raises(OptionError, match="openvino fp16 is off"):
        get_backend("openvino").load_exporter("fp16")


def test_exporter_without_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeface.backends.has_module", lambda name: False)
    with pytest.raises(OptionError, match="runs from a checkout"):
        get_backend("onnx").load_exporter("fp32")
    assert get_backend("onnx").installed() is None
    with pytest.raises(MissingExtraError, match=r"edgeface\[tflite\]"):
        import_runtime(get_backend("tflite"))
