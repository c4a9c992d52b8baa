"""PlainNet structure strings: exact round trip, clear refusals, no torch."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeface.architecture.registry import ARCHITECTURES, PUBLISHED
from edgeface.architecture.structure import (
    EXPANSIONS,
    KERNELS,
    KINDS,
    PLAIN,
    SuperBlock,
    format_structure,
    parse,
)
from edgeface.errors import ModelError

STRUCTURES = [ARCHITECTURES[name].structure for name in PUBLISHED if name.startswith("damofd")]
channels = st.integers(1, 9999)


@st.composite
def structures(draw: st.DrawFn) -> tuple[SuperBlock, ...]:
    widths = draw(st.lists(channels, min_size=2, max_size=8))
    blocks = []
    for w_in, w_out in pairwise(widths):
        kind = draw(st.sampled_from(KINDS))
        blocks.append(
            SuperBlock(
                kind=kind,
                kernel=draw(st.sampled_from(KERNELS)),
                in_channels=w_in,
                out_channels=w_out,
                stride=draw(st.sampled_from((1, 2))),
                layers=draw(st.integers(1, 99)),
                bottleneck=0 if kind in PLAIN else draw(channels),
                expansion=draw(st.sampled_from(EXPANSIONS)) if kind == "inverted" else 0,
            )
        )
    return tuple(blocks)


@given(structures())
def test_any_structure_survives_the_round_trip(blocks: tuple[SuperBlock, ...]) -> None:
    text = format_structure(blocks)
    assert parse(text) == blocks
    assert format_structure(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["SuperConvK6BNRELU(3,16,4,1)", "SuperDWK5BNRELU(16,24,2,3)", "SuperConvResK3K3(16,24,2,8,3)"],
)
def test_our_own_forms_survive_it(text: str) -> None:
    assert format_structure(parse(text)) == text


@pytest.mark.parametrize("text", STRUCTURES)
def test_published_structures_are_printed_back_exactly(text: str) -> None:
    assert format_structure(parse(text)) == text
    assert len(parse(text)) == 5


def test_a_block_is_read_field_by_field() -> None:
    assert parse("SuperResIDWE6K5(120,160,2,96,3)") == (
        SuperBlock(
            "inverted",
            kernel=5,
            in_channels=120,
            out_channels=160,
            stride=2,
            layers=3,
            bottleneck=96,
            expansion=6,
        ),
    )
    assert parse("SuperConvK3BNRELU(3,24,2,2)") == (SuperBlock("conv", 3, 3, 24, 2, 2),)


GOOD = "SuperConvK3BNRELU(3,32,2,1)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (
            GOOD + "SuperResK4K4(32,32,2,8,1)",
            "block 2, 'SuperResK4K4(32,32,2,8,1)', is malformed; accepted: SuperConvK3",
        ),
        (GOOD + "SuperResK3K5(32,32,2,8,1)", "block 2"),
        (GOOD + "SuperResIDWE3K3(32,32,2,8,1)", "E one of 1, 2, 4, 6"),
        (GOOD + "SuperResK3K3(32,32,3,8,1)", "block 2"),
        (GOOD + "SuperResK3K3(32,32,2,8)", "block 2"),
        (GOOD + "SuperResK3K3(32,32,2,8,0)", "block 2"),
        (GOOD + "SuperResK3K3(32,032,2,8,1)", "block 2"),
        (GOOD + " SuperResK3K3(32,32,2,8,1)", "block 2"),
        (GOOD + "SuperResK3K3(32,32,2,8,1", "block 2"),
        (GOOD + "rubbish", "block 2, 'rubbish'"),
        (GOOD + "x" * 10_000, "..."),
        (GOOD + "SuperResK3K3(32,32,2,8,100)", "layers is 100, accepted: 1 to 99"),
        (GOOD + "SuperResK3K3(24,32,2,8,1)", "takes 24 channels but block 1 gives 32"),
        ("SuperConvK3BNRELU(3,٣٢,2,1)", "block 1"),
        ("SuperConvK3BNRELU(3,32,2,1)\n", "block 2"),
    ],
)
def test_malformed_structure_names_the_block(text: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@given(
    st.text(alphabet="SuperResConvIDWEKBNRELU0123456789(), ", max_size=60) | st.text(max_size=60)
)
def test_any_text_is_read_exactly_or_refused(text: str) -> None:
    try:
        blocks = parse(text)
    except ModelError:
        return
    assert format_structure(blocks) == text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "dense"}, "conv, separable, basic, led, bottleneck, inverted"),
        ({"kernel": 4}, "3, 5 or 7"),
        ({"stride": 4}, "1 or 2"),
        ({"bottleneck": 0}, "bottleneck is 0"),
        ({"expansion": 2}, "expansion is 2, accepted: 0"),
        ({"out_channels": 10_000}, "1 to 9999"),
    ],
)
def test_a_block_that_has_no_text_is_refused(change: dict[str, object], said: str) -> None:
    fields: dict[str, object] = {
        "kind": "basic",
        "kernel": 3,
        "in_channels": 8,
        "out_channels": 8,
        "stride": 1,
        "layers": 1,
        "bottleneck": 8,
    }
    with pytest.raises(ModelError, match=said):
        SuperBlock(**(fields | change))  # type: ignore[arg-type]


def test_structures_and_registry_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import edgeface.architecture.structure as s; "
        "import edgeface.models as m; s.parse(m.get_architecture('damofd-34g').structure)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
