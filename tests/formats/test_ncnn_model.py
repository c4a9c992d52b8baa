"""ncnn files: what we write is what ncnn reads, and nothing that is damaged reaches it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import ONE_OF_EACH
from numpy.typing import NDArray

from edgeface.bundle import MANIFEST, Bundle, Manifest, write_bundle
from edgeface.decode import head_layout
from edgeface.errors import BundleError, EdgefaceError, ImageError, ModelError
from edgeface.formats.ncnn import (
    NcnnLayer,
    NcnnModel,
    dump_bin,
    dump_param,
    parse_model,
    parse_param,
)
from edgeface.runners import open_runner

WIDTH, HEIGHT = 24, 16
FAMILIES = ("damofd-0.5g", "scrfd-2.5g", "scrfd-0.5g-bn")
"""group norm and depthwise; group norm and pooling; batch norm folded away"""

cases = pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])


def fuzz(count: int, **strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], None]:
    """Call a function ``count`` times, always with the same examples, each within a second."""
    wanted = settings(
        max_examples=count,
        deadline=1000,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def run(function: Callable[..., None]) -> None:
        wanted(given(**strategies)(function))()

    return run


def weights(*counts: int, dtype: str = "<f4") -> list[NDArray[Any]]:
    random = np.random.default_rng(sum(counts))
    if dtype == "i1":
        return [random.integers(-127, 128, count).astype(dtype) for count in counts]
    return [random.normal(size=count).astype(dtype) for count in counts]


def int8_weights(
    layer: dict[str, NDArray[Any]], rows: int, top: bool = False
) -> dict[str, NDArray[Any]]:
    scales = {"weight_scales": np.full(rows, 60.0, "<f4"), "bottom_scale": np.array([2.0], "<f4")}
    return layer | scales | ({"top_scale": np.array([3.0], "<f4")} if top else {})


def every_layer_type() -> NcnnModel:
    """A small graph with each known layer, each kind of weights and a chain of int8."""
    conv = {1: 3, 11: 3, 4: 1, 14: 1, 2: 1, 3: 1}
    w = weights(108, 144, 24)
    eight = weights(144, 36, dtype="i1")
    (half,) = weights(16, dtype="<f2")
    bias4, gamma, beta, bias1 = weights(4, 4, 4, 2)
    return NcnnModel(
        (
            NcnnLayer("Input", "input", (), ("input",), {0: WIDTH, 1: HEIGHT, 2: 3}),
            NcnnLayer(
                "Convolution",
                "first",
                ("input",),
                ("1",),
                {0: 4, **conv, 5: 1, 6: 108, 9: 1, 18: 127.5},
                {"weight": w[0], "bias": bias4},
            ),
            NcnnLayer("Split", "fork", ("1",), ("2", "3")),
            NcnnLayer(
                "Convolution",
                "eight",
                ("2",),
                ("4",),
                {0: 4, **conv, 5: 1, 6: 144, 8: 102, 9: 2, 10: (0.125,)},
                int8_weights({"weight": eight[0], "bias": bias4}, 4, top=True),
            ),
            NcnnLayer(
                "ConvolutionDepthWise",
                "deep",
                ("4",),
                ("5",),
                {0: 4, **conv, 6: 36, 7: 4, 8: 1},
                int8_weights({"weight": eight[1]}, 4),
            ),
            NcnnLayer("Pooling", "pool", ("5",), ("6",), {0: 1, 1: 2, 2: 2, 5: 1}),
            NcnnLayer("Interp", "grow", ("6",), ("7",), {0: 2, 1: 2.0, 2: 2.0}),
            NcnnLayer("BinaryOp", "add", ("3", "7"), ("8",), {0: 0}),
            NcnnLayer("BinaryOp", "scale", ("8",), ("9",), {0: 2, 1: 1, 2: 0.5}),
            NcnnLayer(
                "GroupNorm",
                "norm",
                ("9",),
                ("10",),
                {0: 2, 1: 4, 2: 0.25, 3: 1},
                {"gamma": gamma, "beta": beta},
            ),
            NcnnLayer("ReLU", "relu", ("10",), ("11",)),
            NcnnLayer(
                "Convolution", "half", ("11",), ("12",), {0: 4, 1: 1, 6: 16}, {"weight": half}
            ),
            NcnnLayer("Pooling", "down", ("12",), ("13",), {1: 16, 2: 16, 5: 1}),
            NcnnLayer(
                "InnerProduct",
                "dense",
                ("13",),
                ("out",),
                {0: 2, 1: 1, 2: 8},
                {"weight": weights(8)[0], "bias": bias1},
            ),
        )
    )


def joins_and_parts() -> NcnnModel:
    """A small graph with the layers that networks of six levels have beside those."""
    return NcnnModel(
        (
            NcnnLayer("Input", "input", (), ("input",), {0: WIDTH, 1: HEIGHT, 2: 3}),
            NcnnLayer(
                "MemoryData", "mean", (), ("1",), {0: 1, 1: 1, 2: 3}, {"data": weights(3)[0]}
            ),
            NcnnLayer("BinaryOp", "centre", ("input", "1"), ("2",), {0: 1}),
            NcnnLayer("Slice", "planes", ("2",), ("3", "4", "5"), {0: (1, 1, -233), 1: 0}),
            NcnnLayer("BinaryOp", "least", ("3", "4"), ("6",), {0: 5}),
            NcnnLayer("Split", "fork", ("6",), ("7", "8", "9")),
            NcnnLayer("BinaryOp", "most", ("5", "7"), ("10",), {0: 4}),
            NcnnLayer("Eltwise", "sum", ("10", "8"), ("11",), {0: 1, 1: (0.5, 0.25)}),
            NcnnLayer("Concat", "join", ("11", "9"), ("12",), {0: 0}),
            NcnnLayer("Interp", "resize", ("12",), ("out",), {0: 2, 3: 7, 4: 5, 6: 1}),
        )
    )


FULL, JOINS = every_layer_type(), joins_and_parts()
PARAM, BIN = dump_param(FULL), dump_bin(FULL)


def parse(param: bytes = PARAM, content: bytes = BIN) -> NcnnModel:
    model = parse_model(param, content)
    assert model.shapes(WIDTH, HEIGHT) == NcnnModel(parse_param(param)).shapes(WIDTH, HEIGHT)
    return model


def same(one: NcnnModel, other: NcnnModel) -> bool:
    def fields(layer: NcnnLayer) -> tuple[Any, ...]:
        return (
            layer.type,
            layer.name,
            layer.bottoms,
            layer.tops,
            dict(layer.params),
            {name: (value.dtype, value.tobytes()) for name, value in layer.weights.items()},
        )

    return [fields(a) for a in one.layers] == [fields(b) for b in other.layers]


class TestFormat:
    def test_bytes_of_a_small_model(self) -> None:
        """Written out by hand from the description of the format."""
        model = NcnnModel(
            (
                NcnnLayer("Input", "input", (), ("input",)),
                NcnnLayer(
                    "Convolution",
                    "conv",
                    ("input",),
                    ("1",),
                    {0: 1, 1: 1, 5: 1, 6: 3, 9: 2, 10: (0.25,)},
                    {"weight": np.array([1, -2, 0.5], "<f4"), "bias": np.array([1], "<f4")},
                ),
                NcnnLayer(
                    "ConvolutionDepthWise",
                    "int8",
                    ("1",),
                    ("out",),
                    {0: 1, 1: 1, 6: 1, 7: 1, 8: 1},
                    {
                        "weight": np.array([-3], "i1"),
                        "weight_scales": np.array([2], "<f4"),
                        "bottom_scale": np.array([4], "<f4"),
                    },
                ),
            )
        )
        assert (
            dump_param(model)
            == b"7767517\n3 3\nInput                    input                    0 1"
            b" input\nConvolution              conv                     1 1 input 1 0=1 1=1 5=1"
            b" 6=3 9=2 -23310=1,0.25\nConvolutionDepthWise     int8                     1 1 1"
            b" out 0=1 1=1 6=1 7=1 8=1\n"
        )
        assert dump_bin(model) == bytes.fromhex(
            "00000000"
            "0000803f"
            "000000c0"
            "0000003f"
            "0000803f"  # tag of float32, weights 1 -2 0.5, bias 1
            "384b0d00"
            "fd000000"
            "00000040"
            "00008040"  # tag of int8, -3 padded to 4 bytes, scales 2 and 4
        )

    def test_float16_has_a_tag_and_is_padded(self) -> None:
        model = NcnnModel(
            (
                NcnnLayer("Input", "input", (), ("input",)),
                NcnnLayer(
                    "Convolution",
                    "conv",
                    ("input",),
                    ("1",),
                    {0: 1, 1: 1, 6: 3},
                    {"weight": np.array([1, -2, 0.5], "<f2")},
                ),
            )
        )
        assert dump_bin(model) == bytes.fromhex("476b3001003c00c000380000")
        assert same(parse_model(dump_param(model), dump_bin(model)), model)

    def test_round_trip_of_every_layer_type(self) -> None:
        assert same(parse(), FULL)
        assert (dump_param(parse()), dump_bin(parse())) == (PARAM, BIN)

    def test_shapes(self) -> None:
        shapes = FULL.shapes(WIDTH, HEIGHT)
        assert FULL.inputs == ("input",) and FULL.outputs == ("out",)
        assert [shapes[name] for name in ("input", "3", "5", "6", "7", "13", "out")] == [
            (3, 16, 24),
            (4, 16, 24),
            (4, 16, 24),
            (4, 8, 12),
            (4, 16, 24),
            (4, 1, 1),
            (2,),
        ]

    def test_joins_and_parts(self) -> None:
        param, content = dump_param(JOINS), dump_bin(JOINS)
        assert b" -23300=3,1,1,-233 1=0\n" in param and len(content) == 12
        assert same(parse_model(param, content), JOINS)
        shapes = JOINS.shapes(WIDTH, HEIGHT)
        assert [shapes[name] for name in ("1", "2", "4", "11", "12", "out")] == [
            (3, 1, 1),
            (3, 16, 24),
            (1, 16, 24),
            (1, 16, 24),
            (2, 16, 24),
            (2, 7, 5),
        ]

    @pytest.mark.parametrize("model", [FULL, JOINS], ids=["full", "joins"])
    def test_every_model_is_what_ncnn_makes_of_it(self, model: NcnnModel, tmp_path: Path) -> None:
        """ncnn reads the files by itself, and the sizes of its activations are the ones we
        derive."""
        ncnn = pytest.importorskip("ncnn", reason="ncnn is not installed")
        (tmp_path / "m.param").write_bytes(dump_param(model))
        (tmp_path / "m.bin").write_bytes(dump_bin(model))
        net = ncnn.Net()
        assert (
            net.load_param(str(tmp_path / "m.param"))
            == net.load_model(str(tmp_path / "m.bin"))
            == 0
        )
        extractor = net.create_extractor()
        extractor.set_light_mode(False)
        assert (
            extractor.input("input", ncnn.Mat(np.zeros((3, HEIGHT, WIDTH), np.float32)).clone())
            == 0
        )
        for name, shape in model.shapes(WIDTH, HEIGHT).items():
            status, value = extractor.extract(name)
            assert status == 0 and np.array(value).shape == shape, name

    def test_ncnn_reads_the_float_that_is_written(self, tmp_path: Path) -> None:
        """-0.0049787536 has ten decimals; a product with 1 shows what ncnn made of the text."""
        ncnn = pytest.importorskip("ncnn", reason="ncnn is not installed")
        random = np.random.default_rng(0)
        drawn = random.normal(size=40) * 10.0 ** random.integers(-20, 8, 40)
        values = [
            float(np.float32(v)) for v in (-0.0049787536, 0.00012345679, 123456.79, 1.0, *drawn)
        ]
        names = [f"x{i}" for i in range(len(values))]
        model = NcnnModel(
            (
                NcnnLayer("Input", "input", (), ("input",), {0: 2, 1: 2, 2: 3}),
                NcnnLayer("Split", "fork", ("input",), tuple(names)),
                *(
                    NcnnLayer(
                        "BinaryOp", "times" + name, (name,), ("y" + name,), {0: 2, 1: 1, 2: value}
                    )
                    for name, value in zip(names, values, strict=True)
                ),
            )
        )
        assert same(parse_model(dump_param(model), dump_bin(model)), model)
        (tmp_path / "m.param").write_bytes(dump_param(model))
        net = ncnn.Net()
        assert net.load_param(str(tmp_path / "m.param")) == 0
        (tmp_path / "m.bin").write_bytes(b"")
        net.load_model(str(tmp_path / "m.bin"))
        extractor = net.create_extractor()
        extractor.input("input", ncnn.Mat(np.ones((3, 2, 2), np.float32)).clone())
        found = [np.array(extractor.extract("y" + name)[1])[0, 0, 0] for name in names]
        np.testing.assert_allclose(
            found, values, rtol=3e-7
        )  # its powers of ten are rounded to float32, too

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=[] if name in FAMILIES else pytest.mark.slow)
            for name in ONE_OF_EACH
        ],
    )
    @pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
    def test_round_trip_of_real_exports(self, name: str, precision: str) -> None:
        pytest.importorskip("torch", reason="torch is not installed")
        pytest.importorskip("pnnx", reason="pnnx is not installed")
        from edgeface.models.detector import deployable
        from export.ncnn import export_ncnn
        from export.request import ExportRequest
        from export.source import random_source

        network = deployable(random_source(name, 0).network)
        files = export_ncnn(network, ExportRequest("ncnn", precision, 96, 64)).files
        model = parse_model(files[".param"], files[".bin"])
        assert dump_param(model) == files[".param"] and dump_bin(model) == files[".bin"]
        layout, shapes = head_layout(network.architecture), model.shapes(96, 64)
        assert set(model.outputs) == set(layout.output_names)
        for stride in layout.strides:
            cells = (-(-64 // stride), -(-96 // stride))
            assert shapes[f"cls_{stride}"] == (layout.anchors, *cells)
            assert shapes[f"box_{stride}"] == (4 * layout.anchors, *cells)


class TestRefused:
    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("7767517", "7767518", "starts with 7767517, this one with '7767518'"),
            ("14 15", "14 16", "announces '14 16' layers and blobs, it has 14 and 15"),
            ("14 15", "99999999999 15", "expected a whole number, got '99999999999'"),
            ("14 15", "14", "announces '14'"),
            ("ReLU", "Reshape", "has the type 'Reshape' .known: Input, "),
            ("relu ", "re=lu ", "written 'type name bottoms tops ...'"),
            ("1 1 10 11", "1 1 99 11", "bottom '99', which no layer before it writes"),
            ("1 1 10 11", "1 1 8 11", "bottom '8', which two layers read"),
            ("1 1 10 11", "1 1 10 9", "top '9', which is written twice"),
            ("1 1 10 11", "2 1 10 11", "2 bottoms and 1 tops"),
            ("1 1 10 11", "1 1 10", "2 names of blobs are to follow"),
            ("1 1 10 11", "-1 1 10 11", "-1 bottoms"),
            ("relu ", "norm ", "a name that another layer has"),
            ("1 2 1 2 3", "1 999999999 1 2 3", "999999999 tops"),
            ("6=108", "6=109", "109 weights, its shape needs 108"),
            ("6=108", "6=-4", "parameter 6 = -4"),
            ("6=108", "6=1e9", "parameter 6 = 1000000000.0"),
            ("6=108", "6=108 6=108", "'6=108' is unknown or given twice"),
            ("6=108", "6=108 19=1", "'19=1' is unknown or given twice"),
            ("6=108", "6=0x6C", "expected a number of at most 15 characters, got '0x6C'"),
            ("6=108", "6", "expected a number of at most 15 characters, got ''"),
            (" 6=108", "", "no parameter 6"),
            ("18=127.5", "18=127", "parameter 18 = 127"),
            ("18=127.5", "18=nan", "got 'nan'"),
            ("18=127.5", "18=1e39", "got '1e39'"),
            ("18=127.5", "18=127.5000000000000", "at most 15 characters"),
            ("-23310=1,0.125", "-23310=2,0.1", "the list '-23310=2,0.1' has 1 values"),
            ("-23310=1,0.125", "-23310=2,0.1,0.1", "activation 2 with 2 parameters"),
            ("0=2 1=2.0 2=2.0", "0=2 1=60.0 2=2.0", "operands of"),
            ("0=2 1=2.0 2=2.0", "0=2 1=0.02 2=2.0", "an output of 4x0x24 values"),
            ("0=2 1=4 2=0.25", "0=3 1=4 2=0.25", "3 groups of 4 channels"),
            ("0=24 1=16 2=3", "0=48 1=16 2=3", "the size 48x16, not 24x16"),
            ("1=16 2=16 5=1", "1=17 2=16 5=1", "a window of 17 values over 16"),
            ("1=2 2=2 5=1", "1=2 2=2 3=2 5=1", "a padding that is not smaller than its window"),
            ("7=4 8=1", "7=4 8=101", "Pooling 'pool' has 8-bit integers to read"),
            ("7=4 8=1", "7=4 8=2", "parameter 8 = 2"),
        ],
    )
    def test_text(self, old: str, new: str, message: str) -> None:
        assert PARAM.count(old.encode()) >= 1
        content = PARAM.replace(old.encode(), new.encode(), 1)
        with pytest.raises(ModelError, match=message) as caught:
            NcnnModel(parse_param(content)).shapes(WIDTH, HEIGHT)
        assert "\n" not in str(caught.value)
        with pytest.raises(ModelError):
            parse(content)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("0=1 1=1 2=3", "0=2 1=1 2=3", "operands of"),
            ("0=1 1=1 2=3", "0=1 1=1", "no parameter 2"),
            ("-23300=3,1,1,-233", "-23300=2,1,-233", "accepted are equal ones"),
            ("-23300=3,1,1,-233", "-23300=3,2,1,-233", "accepted are equal ones"),
            ("-23300=3,1,1,-233", "-23300=3,1.0,1.0,1.0", "parameter 0 = "),
            (" -23300=3,1,1,-233", "", "no parameter 0"),
            ("-23301=2,0.5,0.25", "-23301=1,0.5", "factors"),
            ("3=7 4=5", "3=7", "an output of 2x7x0 values"),
            ("0=5", "0=6", "parameter 0 = 6"),
        ],
    )
    def test_joins(self, old: str, new: str, message: str) -> None:
        text = dump_param(JOINS)
        assert text.count(old.encode()) == 1
        with pytest.raises(ModelError, match=message) as caught:
            NcnnModel(parse_param(text.replace(old.encode(), new.encode()))).shapes(WIDTH, HEIGHT)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "starts with 7767517"),
            (b"7767517", "starts with 7767517"),
            (b"7767517\n0 0\n", "announces '0 0'"),
            (b"\x85\x78\x76\x00" * 9, "no plain text"),
            (PARAM.replace(b"\n", b"\r\n"), "no plain text"),
            (PARAM + b"\x00ReLU", "no plain text"),
            (PARAM + b" " * (4 << 20), "at most 4 MiB"),
            (b"7767517\n1 1\nInput i 0 1 i\nInput j 0 1 j\n", "announces '1 1'"),
            (b"7767517\n2 2\nInput i 0 1 i\nInput j 0 1 j\n", "exactly one Input"),
            (b"7767517\n1 2\nSplit s 1 2 a b c\n", "bottom 'a', which no layer before it writes"),
        ],
    )
    def test_other_texts(self, content: bytes, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            parse_param(content)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (BIN[:-1], "InnerProduct 'dense' has 8 bytes of weights, the .bin file has 7 left"),
            (BIN + b"\x00" * 4, "4 bytes more than its layers need"),
            (b"", "4 bytes of weights, the .bin file has 0 left"),
            (b"\x01" + BIN[1:], "an unknown kind .tag 0x00000001"),
            (b"\x38\x4b\x0d\x00" + BIN[4:], "weights of type int8 where parameter 8 is 0"),
            (BIN[:4] + b"\x00\x00\xc0\x7f" + BIN[8:], "a weight that is not a finite number"),
            (
                BIN.replace(np.float32(60).tobytes(), np.float32(-60).tobytes(), 1),
                "a negative weight_scales",
            ),
        ],
    )
    def test_weights(self, content: bytes, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            parse(PARAM, content)

    def test_an_output_of_8_bit_integers(self) -> None:
        layers = [layer for layer in FULL.layers[:4] if layer.type != "Split"]
        layers[2] = replace(layers[2], bottoms=("1",))
        model = NcnnModel(tuple(layers))
        with pytest.raises(ModelError, match="output '4' holds 8-bit integers"):
            parse_model(dump_param(model), dump_bin(model)).shapes(WIDTH, HEIGHT)

    @pytest.mark.parametrize(
        "text",
        [
            "7767517\n2147483647 2147483647\nInput i 0 1 i\n",
            "7767517\n2 2\nInput i 0 1 i\nConvolution c 1 1 i o 0=2147483647 1=63 6=2147483647\n",
            "7767517\n2 2\nInput i 0 1 i\nGroupNorm g 1 1 i o 0=1 1=2147483647\n",
            "7767517\n3 3\n" + "ReLU r 1 1 a a\n" * 200_000,
            "7767517\n1 1\n" + "Input i 0 1 i " + "0=1 " * 900_000,
            "7767517\n1 1\n" + " " * 4_000_000,
        ],
    )
    def test_absurd_sizes_cost_nothing(self, text: str) -> None:
        """Two seconds and 256 MB at most for 4 MiB of text: some 60 bytes of Python objects a
        character of it."""
        began = time.process_time()
        tracemalloc.start()
        try:
            with pytest.raises(ModelError):
                parse_model(text.encode(), b"\x00" * 64)
            assert tracemalloc.get_traced_memory()[1] < 256 << 20
        finally:
            tracemalloc.stop()
        assert time.process_time() - began < 10  # tracemalloc slows Python down several times


TOKENS = st.one_of(
    st.sampled_from(
        [
            "",
            "-1",
            "0",
            "1",
            "2",
            "99",
            "2147483647",
            "-2147483648",
            "1e38",
            "nan",
            "0=",
            "=",
            "5=1",
            "8=2",
            "-23310=1,0.5",
            "-23310=",
            "4=63",
            "3=0",
            "0=1.5",
            "1=-1",
            "Split",
            "Input",
            "input",
            "out",
            "\x00",
            "Convolution",
            "\u00e9",
            "%s",
            "6=108",
        ]
    ),
    st.integers().map(str),
    st.text(max_size=20),
    st.tuples(st.integers(-23330, 30), st.integers() | st.floats()).map(
        lambda pair: f"{pair[0]}={pair[1]}"
    ),
)


def mutated_text(data: st.DataObject) -> bytes:
    """PARAM with some of its tokens or lines replaced, repeated, left out or swapped."""
    lines = [line.split() for line in PARAM.decode().splitlines()]
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.integers(0, len(lines) - 1))
        how = data.draw(
            st.sampled_from(("token", "token", "token", "insert", "drop line", "repeat", "swap"))
        )
        if how == "token" and lines[row]:
            lines[row][data.draw(st.integers(0, len(lines[row]) - 1))] = data.draw(TOKENS)
        elif how == "insert":
            lines[row].insert(data.draw(st.integers(0, len(lines[row]))), data.draw(TOKENS))
        elif how == "drop line" and len(lines) > 1:
            del lines[row]
        elif how == "repeat":
            lines.insert(row, list(lines[row]))
        else:
            lines[row], lines[-1] = lines[-1], lines[row]
    return "\n".join(" ".join(line) for line in lines).encode("utf-8", "surrogatepass")


def mutated_bytes(data: st.DataObject, content: bytes) -> bytes:
    """``content`` cut, extended, or with some bytes changed."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(0, 4))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from(("keep", "cut", "extend")))
    if end == "cut":
        return bytes(changed[: data.draw(st.integers(0, len(changed)))])
    return bytes(changed) + (data.draw(st.binary(max_size=40)) if end == "extend" else b"")


def attempt(param: bytes, content: bytes) -> None:
    try:
        model = parse(param, content)
    except EdgefaceError as error:
        assert "\n" not in str(error)
    else:
        assert same(parse_model(dump_param(model), dump_bin(model)), model)


class TestFuzz:
    @cases
    def test_text(self, count: int) -> None:
        fuzz(count, data=st.data())(lambda data: attempt(mutated_text(data), BIN))

    @cases
    def test_bytes_of_the_text(self, count: int) -> None:
        fuzz(count, data=st.data())(lambda data: attempt(mutated_bytes(data, PARAM), BIN))

    @cases
    def test_weights(self, count: int) -> None:
        fuzz(count, data=st.data())(lambda data: attempt(PARAM, mutated_bytes(data, BIN)))

    @cases
    def test_anything(self, count: int) -> None:
        fuzz(count, param=st.binary(max_size=400), content=st.binary(max_size=400))(
            lambda param, content: attempt(b"7767517\n" + param, content)
        )

    @pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
    def test_what_is_accepted_does_not_crash_ncnn(self, count: int, tmp_path: Path) -> None:
        """Files that pass the checks, loaded and run in a process of their own, which ends as it
        should."""
        pytest.importorskip("ncnn", reason="ncnn is not installed")
        random = np.random.default_rng(7)
        accepted = 0
        while accepted < count:
            param, content = _plausible(random)
            try:
                parse(param, content)
            except EdgefaceError:
                continue
            (tmp_path / f"{accepted}.param").write_bytes(param)
            (tmp_path / f"{accepted}.bin").write_bytes(content)
            accepted += 1
        done = subprocess.run(
            [sys.executable, "-c", RUN_ALL, str(tmp_path), str(count), str(WIDTH), str(HEIGHT)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert (done.returncode, done.stdout.split()[-1:]) == (0, ["finished"]), done.stderr[-2000:]


RUN_ALL = """
import sys, ncnn, numpy as np
folder, count, width, height = sys.argv[1], *map(int, sys.argv[2:])
image = np.random.default_rng(0).normal(size=(3, height, width)).astype(np.float32)
for i in range(count):
    print(i, flush=True)
    net = ncnn.Net()
    net.opt.num_threads = 1
    assert net.load_param(f"{folder}/{i}.param") == 0 and net.load_model(f"{folder}/{i}.bin") == 0
    extractor = net.create_extractor()
    extractor.input("input", ncnn.Mat(image).clone())
    status, value = extractor.extract("out")
    assert status == 0 and np.array(value).shape == (2,)
print("finished")
"""


def _plausible(random: np.random.Generator) -> tuple[bytes, bytes]:
    """Numbers in the text replaced by small ones, bytes of the weights by any: often accepted."""
    tokens = PARAM.decode().split(" ")
    for _ in range(random.integers(1, 4)):
        places = [i for i, token in enumerate(tokens) if "=" in token and not token.startswith("-")]
        place = int(random.choice(places))
        key, _, value = tokens[place].partition("=")
        new = str(int(random.integers(0, 9))) if "." not in value else f"{random.normal() * 3:.3f}"
        tokens[place] = f"{key}={new}" + ("\n" + value.split("\n", 1)[1] if "\n" in value else "")
    content = bytearray(BIN)
    for place in random.integers(0, len(content), 6):
        content[place] = random.integers(0, 256)
    return " ".join(tokens).encode(), bytes(content)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["../x", "edgeface-n.param", "ncnn", "int8", "a" * 300, 1 << 70, -1, 0, 32, 65536]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def mutated_json(data: st.DataObject, value: Any) -> Any:
    """A copy with one of its values, at any depth, replaced, left out or added."""
    value = copy.deepcopy(value)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return value
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], (dict, list)) and data.draw(st.booleans()):
            place = place[key]
            continue
        how = data.draw(st.sampled_from(("replace", "replace", "delete", "add")))
        if how == "delete":
            del place[key]
        elif how == "add" and isinstance(place, dict):
            place[data.draw(st.text(max_size=12))] = data.draw(JSON)
        else:
            place[key] = data.draw(JSON)
        return value


class TestManifests:
    @pytest.fixture(scope="class")
    def int8_like(self, exported: Callable[..., Bundle]) -> Bundle:
        """With every optional field of a manifest filled in."""
        pytest.importorskip("torch", reason="torch is not installed")
        pytest.importorskip("pnnx", reason="pnnx is not installed")
        bundle = exported("ncnn")
        manifest = replace(
            bundle.manifest,
            output_quantization=dict.fromkeys(bundle.manifest.outputs, (0.1, 3.0)),
            calibration={"method": "mse", "images": 2, "sha256": ["0" * 64, "1" * 64]},
            accuracy={
                "float": {"hard": 0.6},
                "int8": {"hard": 0.5},
                "images": 4,
                "reverted_layers": ["a"],
            },
        )
        return replace(bundle, manifest=manifest)

    @cases
    def test_mutated_objects(self, count: int, int8_like: Bundle) -> None:
        original = json.loads(int8_like.manifest.dumps())

        def check(data: st.DataObject) -> None:
            try:
                manifest = Manifest.from_json(mutated_json(data, original))
            except EdgefaceError as error:
                assert "\n" not in str(error)
            else:
                assert Manifest.from_json(json.loads(manifest.dumps())) == manifest

        fuzz(count, data=st.data())(check)

    @pytest.mark.parametrize("text", ["1e999", "-1e999", "[[1e999]]", "[" * 40 + "]" * 40])
    def test_what_could_not_be_written_again(self, text: str, int8_like: Bundle) -> None:
        """JSON can write an infinity without its name; found by the test above."""
        changed = json.loads(int8_like.manifest.dumps()) | {"accuracy": {"float": json.loads(text)}}
        with pytest.raises(
            BundleError, match=r"manifest\.accuracy\['float'\]: expected finite numbers"
        ):
            Manifest.from_json(changed)

    @cases
    def test_mutated_files(self, count: int, int8_like: Bundle) -> None:
        """Opened from disk: text that is no JSON, and files that are not there."""
        text = int8_like.manifest.dumps().encode()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)

            def check(data: st.DataObject) -> None:
                (folder / MANIFEST).write_bytes(mutated_bytes(data, text))
                with pytest.raises(EdgefaceError) as caught:
                    Bundle.open(folder)
                assert "\n" not in str(caught.value)

            fuzz(count, data=st.data())(check)

    @pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
    def test_runner_of_mutated_manifests(
        self, count: int, exported: Callable[..., Bundle], astronaut: Any
    ) -> None:
        """A manifest that is accepted, with files that are intact: refused or run, never
        crashed."""
        pytest.importorskip("pnnx", reason="pnnx is not installed")
        bundle = exported("ncnn")
        original = json.loads(bundle.manifest.dumps())
        original = {
            name: original[name] for name in original if name not in ("weights", "tools", "parity")
        }
        rest = {
            name: value
            for name, value in json.loads(bundle.manifest.dumps()).items()
            if name not in original
        }

        def check(data: st.DataObject) -> None:
            try:
                changed = mutated_json(data, original)
                manifest = Manifest.from_json({**rest, **changed})
                with open_runner(Bundle(bundle.path, manifest)) as runner:
                    runner.run(astronaut[None, :128, :160])
            except EdgefaceError as error:
                assert "\n" not in str(error)

        fuzz(count, data=st.data())(check)


class TestRunnerChecks:
    """What only this runner has to look at; the rest is in the kit."""

    @pytest.fixture(scope="class")
    def bundle(self, exported: Callable[..., Bundle]) -> Bundle:
        pytest.importorskip("torch", reason="torch is not installed")
        pytest.importorskip("pnnx", reason="pnnx is not installed")
        return exported("ncnn")

    def _with(
        self,
        bundle: Bundle,
        folder: Path,
        change: Callable[[NcnnModel], NcnnModel],
        **manifest: Any,
    ) -> Bundle:
        param, content = (bundle.read(f"edgeface-n{suffix}") for suffix in (".param", ".bin"))
        model = change(parse_model(param, content))
        return write_bundle(
            folder / "b",
            replace(bundle.manifest, **manifest),
            {"edgeface-n.param": dump_param(model), "edgeface-n.bin": dump_bin(model)},
        )

    def test_heads_that_are_not_the_layouts(self, bundle: Bundle, tmp_path: Path) -> None:
        outputs = bundle.manifest.outputs | {"cls_8": "cls_16", "cls_16": "cls_8"}
        with pytest.raises(
            BundleError, match=r"output cls_8 has the shape \(1, 8, 10\), the head layout says"
        ):
            open_runner(self._with(bundle, tmp_path, lambda model: model, outputs=outputs))

    def test_layout_of_another_runtime(self, bundle: Bundle, tmp_path: Path) -> None:
        spec = replace(bundle.manifest.input, layout="NHWC")
        with pytest.raises(
            BundleError, match=r"the file takes \[1, 3, 128, 160\], its manifest says \[1, 128,"
        ):
            open_runner(self._with(bundle, tmp_path, lambda model: model, input=spec))

    def test_weights_without_their_file(self, bundle: Bundle, tmp_path: Path) -> None:
        alone = write_bundle(tmp_path / "b", bundle.manifest, {"edgeface-n.param": bundle.read()})
        with pytest.raises(BundleError, match=r"no file 'edgeface-n\.bin'"):
            open_runner(alone)

    def test_a_size_at_which_the_layers_do_not_fit(self, bundle: Bundle, tmp_path: Path) -> None:
        """A pyramid that doubles a size which was rounded down: it fits at some sizes only."""

        def no_padding(model: NcnnModel) -> NcnnModel:
            free = [
                replace(layer, params={}) if layer.type == "Input" else layer
                for layer in model.layers
            ]
            first = next(i for i, layer in enumerate(free) if layer.type == "Convolution")
            free[first] = replace(free[first], params={**free[first].params, 4: 9, 14: 9})
            return NcnnModel(tuple(free))

        manifest = bundle.manifest
        spec = replace(manifest.input, dynamic=True)
        with pytest.raises(BundleError, match=r"cannot be loaded: (output cls_8|ncnn BinaryOp)"):
            open_runner(self._with(bundle, tmp_path, no_padding, input=spec))

    def test_memory(self, exported: Callable[..., Bundle]) -> None:
        """An image of 65536 x 65536 px is refused before anything is computed."""
        dynamic = exported("ncnn", "fp32", True)
        with (
            open_runner(dynamic) as runner,
            pytest.raises(ImageError, match="cannot run at 65536x65536 px"),
        ):
            runner.run(np.broadcast_to(np.zeros(1, np.uint8), (1, 65536, 65536, 3)))
