"""Which operators lie between INT8 layers, on a small graph."""

from __future__ import annotations

from quantize.neighbours import Operator, int8_after, int8_before

#   image -> first -> relu -> second --> add -> pool -> third -> norm -> out
#                        '-------------> '
GRAPH = [
    Operator("first", ("image",), ("a",), layer=True),
    Operator("relu", ("a",), ("b",), layer=False),
    Operator("second", ("b",), ("c",), layer=True),
    Operator("add", ("b", "c"), ("d",), layer=False),
    Operator("pool", ("d",), ("e",), layer=False),
    Operator("third", ("e",), ("f",), layer=True),
    Operator("norm", ("f",), ("g",), layer=False, carried=False),
    Operator("out", ("g",), ("h",), layer=True),
]
EVERYTHING = {op.name for op in GRAPH}


def test_nothing_reverted() -> None:
    assert int8_before(GRAPH, ()) == EVERYTHING - {"out"}  # "norm", in float, is between
    assert int8_after(GRAPH, ["h"], ()) == EVERYTHING - {"third"}


def test_one_int8_neighbour_is_enough() -> None:
    assert {"relu", "add", "pool"} <= int8_before(GRAPH, ["second"])
    assert {"relu", "add", "pool"} <= int8_after(GRAPH, ["h"], ["second"])


def test_between_float_layers() -> None:
    before = int8_before(GRAPH, ["first", "second"])
    assert not before & {"relu", "add", "pool"} and "first" in before
    after = int8_after(GRAPH, ["h"], ["third"])
    assert not after & {"add", "pool"} and "relu" in after  # "second" in int8 reads "relu"


def test_all_reverted() -> None:
    layers = [op.name for op in GRAPH if op.layer]
    assert int8_before(GRAPH, layers) == {"first"}  # it reads the image
    assert int8_after(GRAPH, ["h"], layers) == {"out"}  # it makes the output
