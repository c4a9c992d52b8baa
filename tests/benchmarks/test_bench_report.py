"""The report page: what it says, what it must never do, and how it looks in a browser."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import CHROMIUM, HOSTILE, Reader, check_in_chromium

from benchmarks import report
from benchmarks.results import Accuracy, Context, Results
from edgeface.latency.devices import open_device
from edgeface.latency.measurement import Measurement, save_measurements
from edgeface.latency.protocol import Job, Protocol
from edgeface.pages.charts import Axis
from edgeface.pages.markup import tag, text

if TYPE_CHECKING:
    from edgeface.bundle import Bundle

QUICK = Protocol(rounds=5, per_round=2, warm_up_s=0, photo_width=160, photo_height=128)


@pytest.fixture(scope="session")
def records(exported: Callable[..., Bundle]) -> list[Measurement]:
    """Records of three real files with five rounds each: too few samples, so none is valid."""
    jobs = [
        Job(str(exported(*which).path))
        for which in (("onnx", "fp32"), ("onnx", "int8"), ("tflite", "fp32"))
    ]
    with open_device("local") as device:
        return device.measure(jobs, QUICK, 0)


@pytest.fixture(scope="session")
def judged(records: list[Measurement]) -> list[Measurement]:
    """The same records, with the first two marked valid."""
    good = [dataclasses.replace(r, valid=True, invalid_reasons=()) for r in records[:2]]
    return [
        *good,
        dataclasses.replace(records[2], valid=False, invalid_reasons=("throttled: by hand",)),
    ]


@pytest.fixture(scope="session")
def context(records: list[Measurement]) -> Context:
    """AP for all three records."""
    known = {
        r.bundle: Accuracy(r.files, 0.8, 0.7, 0.5 + 0.01 * i, 400, "640 px")
        for i, r in enumerate(records)
    }
    return Context(known, left_out=("ncnn int8: not made",))


def test_says_what_was_measured(judged: list[Measurement], context: Context) -> None:
    page = Reader(report.document(judged, context))
    for record in judged:
        assert record.bundle in page.text and record.runtime in page.text
    assert "2 of 3 records are valid" in page.text and "ncnn int8: not made" in page.text
    assert judged[0].environment.machine.cpu in page.text
    assert "AP hard 50.00 to 51.00" in page.text
    assert sum(attributes.get("class") == "dots t0" for _, attributes in page.tags) == 2


def test_an_invalid_figure_has_its_reason_beside_it(
    judged: list[Measurement], context: Context
) -> None:
    page = report.document(judged, context)
    rows = re.findall(r'<div class="label">.*?</div>', page) + re.findall(r"<tr>.*?</tr>", page)
    about = [row for row in rows if judged[2].bundle in row or "TFLite" in row]
    assert len(about) >= 4 and all("by hand" in row for row in about if "ai-edge-litert" not in row)
    assert not any("by hand" in title for title in re.findall(r"<li>.*?</li>", page)), (
        "invalid, and on the frontier"
    )


def test_reasons_of_real_records(records: list[Measurement]) -> None:
    page = Reader(report.document(records, Context()))
    assert (
        "0 of 3 records are valid" in page.text and "too few samples: 10 in 5 rounds" in page.text
    )
    assert "No accuracy is known" in page.text


def test_upright_files_have_one_card(judged: list[Measurement]) -> None:
    """Landscape and upright files have as many px, and must not split each other's cards."""
    upright = [dataclasses.replace(r, width=r.height, height=r.width) for r in judged]
    for records in ([*judged, *upright], [*upright, *judged]):
        page = report.document(records, Context())
        for size in ("160x128", "128x160"):
            title = f"{size}, 1 thread, local"
            # in the sections of distributions, stages, and float against INT8
            assert page.count(f">{title}<") == 3


def test_hostile_strings_stay_text(judged: list[Measurement], context: Context) -> None:
    machine = dataclasses.replace(
        judged[0].environment.machine, cpu=HOSTILE, governor=HOSTILE, flags=(HOSTILE,)
    )
    environment = dataclasses.replace(
        judged[0].environment,
        machine=machine,
        runtimes={HOSTILE: HOSTILE},
        precision_hints={HOSTILE: [HOSTILE]},
        delegates={HOSTILE: HOSTILE},
    )
    evil = [
        dataclasses.replace(
            r,
            bundle=HOSTILE,
            model=HOSTILE,
            runtime=HOSTILE,
            device=HOSTILE,
            target=HOSTILE,
            valid=False,
            invalid_reasons=(HOSTILE,),
            environment=environment,
        )
        for r in judged
    ]
    evil += [
        dataclasses.replace(r, model=HOSTILE, precision=HOSTILE, environment=environment)
        for r in judged
    ]
    known = Context({HOSTILE: Accuracy(evil[0].files, 0, 0, 0.5, 1, HOSTILE)}, left_out=(HOSTILE,))
    plain = Reader(report.document(judged, context))
    page = report.document(evil, known)
    page.encode("utf-8")
    Reader(page).check_harmless(plain, also=("ul", "li", "p", "ol"))


def test_refers_to_nothing_outside(judged: list[Measurement], context: Context) -> None:
    page = report.document(judged, context)
    assert not re.search(r"https?:|//|url\(|@import|<script|<link|<iframe|data:", page)
    assert "default-src 'none'" in page


def test_equal_input_gives_equal_bytes(
    judged: list[Measurement], context: Context, tmp_path: Path
) -> None:
    """The same records in a file, in whatever order, give the same page."""
    report.write_report(tmp_path / "a.html", judged, context)
    results = Results(tmp_path)
    for record in reversed(judged):
        results.keep(record)
    results.note(accuracy=context.accuracy, left_out=context.left_out)
    assert report.main([str(tmp_path / "latency.json")]) == 0
    assert (tmp_path / "report.html").read_bytes() == (tmp_path / "a.html").read_bytes()


@pytest.mark.parametrize("change", ["no records", "no samples", "zeros", "huge"])
def test_odd_records(judged: list[Measurement], context: Context, change: str) -> None:
    """Unusual values that a file of records may hold never break the page."""
    found = judged
    if change == "no records":
        found = []
    elif change == "no samples":
        found = [dataclasses.replace(r, samples={}) for r in judged]
    else:
        value = 0.0 if change == "zeros" else 1e299
        flat = dataclasses.replace(
            judged[0].network_ms, min=value, median=value, p90=value, p99=value
        )
        found = [
            dataclasses.replace(
                r, network_ms=flat, end_to_end_ms=flat, preprocess_ms=flat, postprocess_ms=flat
            )
            for r in judged
        ]
    page = report.document(found, context)
    assert not re.search(r"\b(nan|inf)\b", page) and page.endswith("</html>\n")


def test_no_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "none.json")]) == 2
    (tmp_path / "context.json").write_text('{"peers": [1]}')
    save_measurements(tmp_path / "latency.json", [])
    assert report.main([str(tmp_path / "latency.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_frontier() -> None:
    """A system that is slower and no better, or None, gets no rank; of equals the first does."""
    assert report.frontier([(3, 0.5), (1, 0.4), (2, 0.4), None, (2, 0.6), (3, 0.5), (4, 0.6)]) == [
        None,
        1,
        None,
        None,
        2,
        None,
        None,
    ]
    assert report.frontier([]) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.2, 7.9], (0, 8, 2)),
        ([], (0, 1, 0.2)),
        ([0.0], (0, 1, 0.2)),
        ([5.0, 5.0], (0, 5, 1)),
    ],
)
def test_axis_is_round_and_holds_all(
    values: list[float], expected: tuple[float, float, float]
) -> None:
    axis = Axis.around(values, zero=True)
    assert (axis.low, axis.high, axis.step) == pytest.approx(expected)
    assert axis.marks()[-1] == pytest.approx(axis.high)
    assert all(0 <= axis.share(v) <= 1 for v in (*values, -1, 1e9))


def test_markup_escapes_all_but_markup() -> None:
    inner = tag("b", "a < b & c")
    assert inner == "<b>a &lt; b &amp; c</b>"
    assert (
        tag("p", inner, 3, class_="x\"'", stroke_width=1)
        == '<p class="x&quot;&#x27;" stroke-width="1"><b>a &lt; b &amp; c</b>3</p>'
    )
    assert (
        text("a\x00\ud800\u202eb é")
        == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b é"
    )


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
@pytest.mark.parametrize("width_px", [1280, 390])
def test_opens_in_a_browser_without_network(
    judged: list[Measurement], context: Context, tmp_path: Path, width_px: int
) -> None:
    page = tmp_path / "report.html"
    report.write_report(page, judged, context)
    check_in_chromium(page, width_px)
