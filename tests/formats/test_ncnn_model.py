"""ncnn files: ncnn reads what we write, and no damaged file reaches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ncnn_models import BIN, FULL, HEIGHT, JOINS, PARAM, WIDTH, parse, same
from networks import ONE_OF_EACH

from edgeface.bundle import Bundle, write_bundle
from edgeface.decode import head_layout
from edgeface.errors import BundleError, ImageError
from edgeface.formats.ncnn import (
    NcnnLayer,
    NcnnModel,
    dump_bin,
    dump_param,
    parse_model,
)
from edgeface.runners import open_runner

FAMILIES = ("damofd-0.5g", "scrfd-2.5g", "scrfd-0.5g-bn")
"""networks with group norm and depthwise layers, group norm and pooling, folded batch norm"""


class TestFormat:
    def test_bytes_of_a_small_model(self) -> None:
        """The expected bytes are written by hand from the description of the format."""
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
        """ncnn loads the written files, and its activations have the sizes that we derive."""
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
        """-0.0049787536 has ten decimals; a product with 1 shows the value that ncnn reads."""
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
        )  # ncnn rounds powers of ten to float32, too

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


class TestRunnerChecks:
    """Checks that only this runner makes; the kit in test_runners.py covers the others."""

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
            replace(bundle.manifest, contract=None, **manifest),
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
        """A pyramid doubles a size that was rounded down, so its layers fit at some sizes only."""

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
