"""The capability table: rows are complete, and every combination works or says why it is off."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib

from edgeface.backends import (
    BACKENDS,
    PRECISIONS,
    capability_table,
    check_combination,
    combinations,
    export_targets,
    get_backend,
    has_module,
    import_runtime,
)
from edgeface.errors import MissingExtraError, OptionError
from edgeface.probes import Probe
from edgeface.runners import Runner


@pytest.mark.parametrize("target", BACKENDS)
def test_rows_are_whole(target: str) -> None:
    row = BACKENDS[target]
    assert row.target == target and row.suffix == row.suffixes[0]
    assert all(re.fullmatch(r"\.[a-z]+", suffix) for suffix in row.suffixes)
    assert len(row.packages) == len(row.distributions) > 0 and row.platforms and row.converters
    assert set(row.off) <= set(PRECISIONS) and all(len(reason) > 10 for reason in row.off.values())


def test_what_is_on() -> None:
    assert export_targets() == ("onnx", "tflite", "openvino", "ncnn")
    assert combinations() == [(target, p) for target in export_targets() for p in PRECISIONS]
    assert combinations("int8") == [(target, "int8") for target in export_targets()]


@pytest.mark.parametrize("target", export_targets())
def test_import_paths_resolve(target: str) -> None:
    row = BACKENDS[target]
    runner: Any = row.load_runner()
    probe: Any = row.load_probe()
    assert issubclass(runner, Runner) and issubclass(probe, Probe)
    pytest.importorskip("torch")
    from quantize.base import Quantizer

    quantizer: Any = row.load_quantizer()
    assert (
        callable(row.load_exporter("fp32"))
        and issubclass(quantizer, Quantizer)
        and quantizer.target == target
    )
    installed = row.installed()
    assert installed is not None and installed[0] in row.distributions


@pytest.mark.parametrize("target", export_targets())
def test_every_package_of_a_row_is_installed_by_an_extra(target: str) -> None:
    row = BACKENDS[target]
    extras = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = extras["optional-dependencies"]
    assert any(text.startswith(row.distributions[0]) for text in extras[row.extra])
    for name in row.converters:
        assert any(re.match(rf"{name}\b", text) for text in extras["export"]), name


@pytest.mark.parametrize(
    ("target", "precision", "message"),
    [
        ("coreml", "fp32", r"unknown target 'coreml' \(known: onnx, tflite, openvino, ncnn\)"),
        ("onnx", "fp8", r"unknown precision 'fp8' \(known: fp32, fp16, int8\)"),
    ],
)
def test_combinations_that_are_unknown(target: str, precision: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_combination(target, precision)


def test_a_combination_that_is_off_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataclasses.replace(get_backend("ncnn"), off={"fp16": "no half floats on this planet"})
    monkeypatch.setitem(BACKENDS, "ncnn", row)
    assert ("ncnn", "fp16") not in combinations() and row.precisions == ("fp32", "int8")
    with pytest.raises(OptionError, match="ncnn fp16 is off: no half floats"):
        row.load_exporter("fp16")


def test_the_documentation_prints_the_table() -> None:
    assert capability_table() in (Path(__file__).parents[1] / "docs" / "formats.md").read_text()


def test_exporter_without_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeface.backends.has_module", lambda name: False)
    monkeypatch.setattr("edgeface.backends.CHECKOUT", tmp_path)
    with pytest.raises(OptionError, match="runs from a checkout"):
        get_backend("onnx").load_exporter("fp32")
    with pytest.raises(OptionError, match="make quantize TARGET=onnx"):
        get_backend("onnx").load_quantizer()
    assert get_backend("onnx").installed() is None
    with pytest.raises(MissingExtraError, match=r"edgeface\[tflite\]"):
        import_runtime(get_backend("tflite"))


def test_a_folder_by_the_name_of_a_runtime_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tflite_runtime").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("tflite_runtime") is not None
    assert not has_module("tflite_runtime")


@pytest.mark.parametrize("first", ["", "import export"])
def test_a_script_of_the_user_may_be_called_export(tmp_path: Path, first: str) -> None:
    script = tmp_path / "export.py"
    script.write_text(
        f"import edgeface\nif __name__ == '__main__':\n    {first or 'pass'}\n"
        "    try:\n        edgeface.export('nothing', 'onnx')\n"
        "    except edgeface.EdgefaceError as error:\n        print(error)\n"
    )
    checkout = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": checkout},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    if first:
        assert f"the module export of this program is {script}, in the place of" in done.stdout
    else:
        assert done.stdout.startswith("unknown model 'nothing'")
