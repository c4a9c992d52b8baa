"""Mutated ncnn files and manifests are refused in one line or read without harm."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ncnn_models import BIN, HEIGHT, PARAM, WIDTH, parse, same

from edgeface.bundle import MANIFEST, Bundle, Manifest
from edgeface.errors import BundleError, EdgefaceError
from edgeface.formats.ncnn import (
    dump_bin,
    dump_param,
    parse_model,
)
from edgeface.runners import open_runner

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
        """Files that pass the checks are loaded and run in a process of their own, which ends
        normally."""
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
    """PARAM with some numbers made small and BIN with some random bytes: often accepted."""
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
    """A copy of ``value`` with one of its values, at any depth, replaced, left out or added."""
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
        """A Bundle whose manifest has the optional fields of INT8 filled in."""
        pytest.importorskip("torch", reason="torch is not installed")
        pytest.importorskip("pnnx", reason="pnnx is not installed")
        bundle = exported("ncnn")
        manifest = replace(
            bundle.manifest,
            contract=None,
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
        """JSON can write infinity as a number such as 1e999; the test above found this."""
        changed = json.loads(int8_like.manifest.dumps()) | {"accuracy": {"float": json.loads(text)}}
        with pytest.raises(
            BundleError, match=r"manifest\.accuracy\['float'\]: expected finite numbers"
        ):
            Manifest.from_json(changed)

    @cases
    def test_mutated_files(self, count: int, int8_like: Bundle) -> None:
        """Bundles opened from disk have a manifest that is no JSON, or lack their files."""
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
        """With intact files, a mutated manifest is refused or the model runs; nothing crashes."""
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
