"""`make bench` on small inputs: what it produces and keeps, and that no work is done twice."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import bench
from benchmarks.results import Results, find_accuracy, load_context
from edgeface.bundle import Bundle, write_bundle
from edgeface.cli.terminal import Terminal
from edgeface.errors import DataError, OptionError
from edgeface.latency.devices import open_device
from edgeface.latency.devices.local import LocalDevice
from edgeface.latency.measurement import Measurement, load_measurements
from edgeface.zoo import save_weights
from export.source import load_source

if TYPE_CHECKING:
    from edgeface.latency.protocol import Job

QUICK = shlex.split(
    "--sizes 160x100 --targets onnx --rounds 5 --per-round 2 --warm-up-s 0 "
    "--photo-width 160 --photo-height 128"
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, lively_size: tuple[int, int]) -> Path:
    """The output folder shared by all tests of this module, with the fp32 ONNX file in it."""
    folder = tmp_path_factory.mktemp("dist")
    o = bench.Options(out=folder)
    bench.Bundles(o, Terminal()).get("onnx", "fp32", lively_size)
    return folder


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[list[Job]]:
    """The jobs of each measuring session; all sessions really run, locally."""
    seen: list[list[Job]] = []

    class Watched(LocalDevice):
        def __init__(self, url: str) -> None:
            self.url = open_device(url).url

        def measure(self, jobs: Any, *arguments: Any) -> Any:
            seen.append(list(jobs))
            protocol, reference, progress, finished, failed = arguments

            def named(record: Measurement) -> None:
                finished(dataclasses.replace(record, device=self.url))

            return super().measure(jobs, protocol, reference, progress, named, failed)

    monkeypatch.setattr(bench, "open_device", Watched)
    return seen


def run(out: Path, *flags: str) -> int:
    return bench.main([*QUICK, "--out", str(out), *flags])


def copied(folder: Path, out: Path) -> None:
    bundle = Bundle.open(folder)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    write_bundle(out / folder.name, bundle.manifest, files)


def test_measures_once_and_reports(
    out: Path,
    portraits: Path,
    exported: Callable[..., Bundle],
    tmp_path: Path,
    sessions: list[list[Job]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "copy_160x128.onnx").write_bytes(exported("onnx").read())
    (tmp_path / "large_640x480.onnx").write_bytes(b"of another size, never opened")
    flags = [
        "--threads",
        "1",
        "--calibration",
        str(portraits),
        "--images",
        "2",
        "--peers",
        str(tmp_path),
    ]
    assert run(out, *flags, "--format", "json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed[0]["ratio"]["verdict"] == "reference" and {r["threads"] for r in printed} == {1}
    assert [r["precision"] for r in printed] == ["fp32", "int8"] and "samples" not in printed[0]
    page = (out / "bench" / "report.html").read_text()
    assert "160x100: the networks take multiples of 32, measured at 160x128 instead" in page
    assert "peers of other sizes than ours: large_640x480.onnx" in page and "copy_160x128" in page

    kept = (out / "bench" / "latency.json").read_bytes()
    assert run(out, *flags) == 0
    assert (out / "bench" / "latency.json").read_bytes() == kept and len(sessions) == 1
    table = capsys.readouterr().out
    assert table.count("INVALID: ") == 4 and "too few samples: 10 in 5 rounds" in table

    assert run(out, *flags, "--again") == 0, "what is not valid is measured again"
    assert len(sessions) == 2 and (out / "bench" / "latency.json").read_bytes() != kept


def test_stopped_and_gone_on(
    out: Path,
    sessions: list[list[Job]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run stopped before its second session keeps the first and does not repeat it."""
    flags = ["--precisions", "fp32", "--results", str(out / "stopped")]
    whole = LocalDevice.measure

    def stop(self: LocalDevice, jobs: Any, *arguments: Any) -> Any:
        if jobs[0].threads == 2:
            raise KeyboardInterrupt
        return whole(self, jobs, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalDevice, "measure", stop)
        code = run(out, *flags)
    assert code == 130 and "run the same command again" in capsys.readouterr().err
    assert [r.threads for r in load_measurements(out / "stopped" / "latency.json")] == [1]
    assert run(out, *flags) == 0
    assert [[job.threads for job in jobs] for jobs in sessions] == [[1], [2], [2]]
    assert [r.threads for r in load_measurements(out / "stopped" / "latency.json")] == [1, 2]


@pytest.mark.parametrize("options", ["?python=/opt/venv/bin/python", "/"])
def test_a_device_with_options_is_gone_on_with(
    out: Path, sessions: list[list[Job]], options: str
) -> None:
    """The options in a device's address appear neither in the records nor in the folder's name."""
    url = f"ssh://pi@{'slash' if options == '/' else 'query'}"
    flags = ["--precisions", "fp32", "--threads", "1", "--device", url + options]
    folder = bench.results_folder(out, url)
    assert run(out, *flags) == 0 and len(sessions) == 1
    (record,) = load_measurements(folder / "latency.json")
    assert record.device == url
    assert run(out, *flags) == 0 and len(sessions) == 1, "it is there"
    assert run(out, *flags, "--again") == 0 and len(sessions) == 2, "what is not valid is not"


def test_int8_without_photos_is_left_out(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(out / "edgeface-n-onnx-fp32-160x128", tmp_path)
    assert run(tmp_path, "--threads", "1", "--data", "no-data") == 0
    told = "onnx int8 160x128: INT8 needs photos, no-data is not a folder: give a WIDER FACE root"
    assert told in capsys.readouterr().err
    assert len(load_measurements(tmp_path / "bench" / "latency.json")) == 1


def test_a_file_that_cannot_be_made_is_a_failure(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other files are measured and the report is written, but the run does not succeed."""
    copied(out / "edgeface-n-onnx-fp32-160x128", tmp_path)
    (tmp_path / "edgeface-n-openvino-fp32-160x128").write_text("in the way")
    flags = ["--threads", "1", "--precisions", "fp32", "--targets", "onnx", "--targets", "openvino"]
    assert bench.main([*QUICK, *flags, "--out", str(tmp_path)]) == 1
    assert "openvino fp32 160x128: " in capsys.readouterr().err
    assert len(load_measurements(tmp_path / "bench" / "latency.json")) == 1
    assert "openvino fp32 160x128: " in (tmp_path / "bench" / "report.html").read_text()


def test_folders_that_are_missing_are_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--threads 1 --precisions fp32 --peers no-peers"
    assert run(out, *flags.split(), "--results", str(out / "missing")) == 0
    told = capsys.readouterr().err
    assert "the peers: no-peers is not a folder" in told
    page = (out / "missing" / "report.html").read_text()
    assert "the peers: no-peers is not a folder" in page


def test_a_bundle_of_other_weights_is_made_anew(
    out: Path, lively_size: tuple[int, int], exported: Callable[..., Bundle], tmp_path: Path
) -> None:
    """``exported`` has random weights under the name of the shipped model: it must be replaced."""
    other = exported("onnx")
    copied(other.path, tmp_path)
    o = bench.Options(out=tmp_path)
    made = bench.Bundles(o, Terminal()).get("onnx", "fp32", lively_size)
    assert made.manifest == Bundle.open(out / made.path.name).manifest != other.manifest


def test_a_file_of_weights_is_a_model(
    lively_size: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(load_source("edgeface-0.5x", seed=0).network, tmp_path / "mine.safetensors")
    o = bench.Options(out=tmp_path, model=str(tmp_path / "mine.safetensors"))
    made = [bench.Bundles(o, Terminal()).get("onnx", "fp32", lively_size) for _ in range(2)]
    assert re.match(r"edgeface-0\.5x-[0-9a-f]{8}-onnx-fp32-", made[0].path.name)
    assert capsys.readouterr().err.count("exporting") == 1, "the second time, it is there"


@pytest.mark.parametrize(
    "flags",
    [
        ["--sizes", "wide"],
        ["--threads", "0"],
        ["--rounds", "0"],
        ["--max-drop", "-1"],
        ["--device", "tcp://x"],
        ["--model", "nothing"],
        ["--results", "/proc/none"],
    ],
)
def test_a_mistake_is_one_line(
    out: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(out, "--precisions", "fp32", *flags) == 2
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("text", "size"), [("320x240", (320, 256)), ("640x480", (640, 480)), ("1x1", (32, 32))]
)
def test_sizes_are_rounded_up(text: str, size: tuple[int, int]) -> None:
    assert bench.fit_size(text)[0] == size


def test_sizes_that_are_none() -> None:
    for text in ("640", "0x32", "99999x32"):
        with pytest.raises(OptionError):
            bench.fit_size(text)


def test_devices_have_folders_of_their_own() -> None:
    assert bench.results_folder(Path("dist"), "local") == Path("dist/bench")
    assert bench.results_folder(Path("dist"), "ssh://pi@host:22/../..") == Path(
        "dist/bench/ssh-pi@host-22-..-.."
    )


def test_accuracy_is_of_the_very_files(exported: Callable[..., Bundle], tmp_path: Path) -> None:
    """AP comes from make bench-export if the file hashes agree, else from the INT8 manifest.

    The INT8 manifest has the AP of both precisions."""
    fp32, int8 = exported("onnx"), exported("onnx", "int8")
    figures = {
        "float": {"easy": 0.8, "medium": 0.7, "hard": 0.5},
        "int8": {"easy": 0.8, "medium": 0.7, "hard": 0.4},
        "images": 9,
        "protocol": "640 px",
    }
    int8 = dataclasses.replace(int8, manifest=dataclasses.replace(int8.manifest, accuracy=figures))
    exports = tmp_path / "exports.json"
    found = find_accuracy([fp32, int8], exports)
    assert (found[fp32.path.name].hard, found[int8.path.name].hard) == (0.5, 0.4)
    row = {"easy": 0.1, "medium": 0.1, "hard": 0.1, "images": 3, "protocol": "x"}
    exports.write_text(
        json.dumps(
            {
                fp32.path.name: {**row, "files": fp32.manifest.files},
                int8.path.name: {**row, "files": {"other": "0" * 64}},
            }
        )
    )
    found = find_accuracy([fp32, int8], exports)
    assert (found[fp32.path.name].hard, found[int8.path.name].hard) == (0.1, 0.4)
    assert find_accuracy([fp32], tmp_path / "none") == {}
    for text in (
        "[]",
        "{",
        json.dumps({fp32.path.name: {"files": fp32.manifest.files, "images": "many"}}),
    ):
        exports.write_text(text)
        with pytest.raises(DataError):
            find_accuracy([fp32], exports)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"peers": [{}]}', '{"accuracy": {"x": 1}}', '{"left_out": [1]}']
)
def test_a_damaged_context_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "context.json").write_text(text)
    with pytest.raises(DataError, match=r"context\.json") as error:
        load_context(tmp_path / "context.json")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError):
        Results(tmp_path)
