"""ncnn files that are inconsistent, cut or absurdly large: refused in one line, at little cost."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from ncnn_models import BIN, FULL, HEIGHT, JOINS, PARAM, WIDTH, parse

from edgeface.errors import ModelError
from edgeface.formats.ncnn import (
    NcnnModel,
    dump_bin,
    dump_param,
    parse_model,
    parse_param,
)


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
        """Parsing 4 MiB of text takes at most 10 s and 256 MiB: about 60 bytes of Python objects
        per character."""
        began = time.process_time()
        tracemalloc.start()
        try:
            with pytest.raises(ModelError):
                parse_model(text.encode(), b"\x00" * 64)
            assert tracemalloc.get_traced_memory()[1] < 256 << 20
        finally:
            tracemalloc.stop()
        assert time.process_time() - began < 10  # tracemalloc slows Python down several times
