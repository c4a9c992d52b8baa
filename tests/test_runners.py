"""The same tests of behaviour for every runner; all runners find the same boxes."""

from __future__ import annotations

import dataclasses
import importlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeface.backends import combinations, export_targets, get_backend
from edgeface.bundle import Bundle, write_bundle
from edgeface.decode import head_layout
from edgeface.detections import Detections
from edgeface.detector import Detector
from edgeface.errors import BundleError, ImageError, MissingExtraError, OptionError
from edgeface.images import letterbox, read_image
from edgeface.runners import Runner, RunnerClosedError, open_runner
from edgeface.runners.torch import _THREAD_COUNT, TorchRunner

if TYPE_CHECKING:
    from export import Source

pytest.importorskip("torch", reason="torch is not installed")
Opener = Callable[..., Runner]

FILES = [(target, precision, False, False) for target, precision in combinations()]
FILES += [
    (target, "fp32", True, landmarks)
    for target in export_targets()
    for landmarks in (False, True)
    if get_backend(target).dynamic
]
FILES += [(target, precision, False, True) for target, precision in combinations("fp32", "int8")]
KINDS = [("torch", "fp32", True, False), ("torch", "fp32", True, True), *FILES]
Kind = tuple[str, str, bool, bool]
"""target, precision, dynamic, with landmarks"""


def _parameter(kind: Kind) -> Any:
    """A kind as a test parameter. Those of fp16 are marked slow: their files differ from fp32 only
    in the weights, and each takes a conversion."""
    target, precision, dynamic, landmarks = kind
    marks = [pytest.mark.slow] if precision == "fp16" else []
    name = "-".join((target, precision, *["dynamic"] * dynamic, *["landmarks"] * landmarks))
    return pytest.param(kind, id=name, marks=marks)


each_file = pytest.mark.parametrize("kind", [_parameter(kind) for kind in FILES], indirect=True)
each_fp32 = pytest.mark.parametrize(
    "kind", [_parameter(kind) for kind in KINDS if kind[1] == "fp32"], indirect=True
)


@pytest.fixture(params=[_parameter(kind) for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def source(kind: Kind, lively: Source, pointed: Source) -> Source:
    """The network that the parametrised kind was made from."""
    return pointed if kind[3] else lively


@pytest.fixture
def opener(kind: Kind, exported: Callable[..., Bundle], source: Source) -> Opener:
    """``opener(threads=1, fast=False)`` -> a runner of the parametrised kind."""
    if kind[0] == "torch":
        return lambda threads=1, fast=False: TorchRunner(source.network, threads)
    bundle = exported(*kind)
    return lambda threads=1, fast=False: open_runner(bundle, threads, fast)


@pytest.fixture
def runner(opener: Opener) -> Iterator[Runner]:
    with opener() as opened:
        yield opened


@pytest.fixture
def batch(astronaut: Any, lively_size: tuple[int, int]) -> Any:
    return letterbox(astronaut, *lively_size)[0][None]


def test_names_shapes_and_types(
    runner: Runner, kind: Kind, batch: Any, lively_size: tuple[int, int]
) -> None:
    outputs = runner.run(batch)
    kinds = {"cls": 1, "box": 4, "kps": 10} if kind[3] else {"cls": 1, "box": 4}
    assert tuple(outputs) == tuple(f"{name}_{stride}" for stride in (8, 16, 32) for name in kinds)
    for stride in (8, 16, 32):
        for name, channels in kinds.items():
            value = outputs[f"{name}_{stride}"]
            assert value.shape == (1, lively_size[1] // stride, lively_size[0] // stride, channels)
            assert value.dtype == np.float32 and value.flags["C_CONTIGUOUS"]


def test_what_it_says_of_itself(runner: Runner, kind: Kind, lively_size: tuple[int, int]) -> None:
    assert runner.model == "edgeface-n" and runner.dynamic == kind[2]
    assert runner.input_size == (None if kind[2] else lively_size)
    name, _, version = runner.runtime.partition(" ")
    assert (
        name in ("torch", *get_backend(kind[0]).distributions)
        if kind[0] != "torch"
        else name == "torch"
    )
    assert version[0].isdigit()


def test_repeats_exactly_and_keeps_its_hands_off(runner: Runner, batch: Any) -> None:
    """Neither the input nor earlier outputs change, and the same input gives the same bits."""
    before = batch.copy()
    first = runner.run(batch)
    kept = {name: value.copy() for name, value in first.items()}
    runner.run(255 - batch)
    second = runner.run(batch)
    assert np.array_equal(batch, before)
    for name in first:
        assert np.array_equal(first[name], kept[name]) and np.array_equal(second[name], kept[name])


def test_a_batch_is_its_images_one_by_one(runner: Runner, batch: Any) -> None:
    both = runner.run(np.concatenate((batch, 255 - batch)))
    for i, image in enumerate((batch, 255 - batch)):
        for name, value in runner.run(image).items():
            assert np.array_equal(both[name][i : i + 1], value)


def test_memory_layout_of_the_batch_does_not_matter(runner: Runner, batch: Any) -> None:
    mirrored = batch[:, :, ::-1]
    frozen = np.ascontiguousarray(mirrored)
    frozen.flags.writeable = False
    for name, value in runner.run(mirrored).items():
        assert np.array_equal(value, runner.run(frozen)[name])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(opener: Opener, batch: Any, threads: int) -> None:
    with opener(1) as one, opener(threads) as some:
        assert some.threads == threads
        for name, value in one.run(batch).items():
            np.testing.assert_allclose(some.run(batch)[name], value, atol=1e-4)


def test_fast_mode_finds_the_same_faces(opener: Opener, kind: Kind, batch: Any) -> None:
    """``runtime`` names the fast mode where there is one. With the 8 bits of a bfloat16 mantissa,
    the RMS error of an output is at most a tenth of its standard deviation."""
    with opener() as exact, opener(fast=True) as fast:
        expected, found = exact.run(batch), fast.run(batch)
        has_one = kind[0] != "torch" and get_backend(kind[0]).fast
        assert fast.runtime == exact.runtime + (" (fast)" if has_one else "")
    for name, value in expected.items():
        assert np.sqrt(np.mean((found[name] - value) ** 2)) <= 0.1 * value.std(), name


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, 10**6])
def test_threads_that_are_none(opener: Opener, threads: Any) -> None:
    with pytest.raises(OptionError, match=r"threads .* is not a whole number from 1 to 1024"):
        opener(threads)


def test_threads_of_numpy(opener: Opener, batch: Any) -> None:
    with opener(np.int64(2)) as runner:
        assert type(runner.threads) is int and runner.threads == 2 and runner.run(batch)


def test_two_models_in_one_process(opener: Opener, batch: Any) -> None:
    with opener() as one, opener() as other:
        expected = one.run(batch)
        one.close()
        for name, value in other.run(batch).items():
            assert np.array_equal(value, expected[name])


def test_use_after_close(opener: Opener, batch: Any) -> None:
    runner = opener()
    runner.close()
    runner.close()
    questions = (runner.ports, runner.precision_hints, runner.delegates)
    for use in (lambda: runner.run(batch), *questions):
        with pytest.raises(RunnerClosedError, match="closed: open it again"):
            use()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((1, 128, 160, 3), np.float32), "got dtype float32"),
        ([1], "got list"),
        (np.zeros((128, 160, 3), np.uint8), r"must be \[N, H, W, 3\]"),
        (np.zeros((1, 3, 128, 160), np.uint8), r"must be \[N, H, W, 3\]"),
        (np.zeros((0, 128, 160, 3), np.uint8), "N of 1 or more"),
        (np.zeros((1, 100, 160, 3), np.uint8), "letterbox the images first|multiples of 32"),
        (np.zeros((1, 0, 0, 3), np.uint8), "letterbox the images first|multiples of 32"),
    ],
)
def test_batches_that_do_not_fit(runner: Runner, bad: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        runner.run(bad)


def test_other_sizes(runner: Runner, source: Source) -> None:
    other = np.random.default_rng(0).integers(0, 256, (1, 96, 224, 3), dtype=np.uint8)
    if not runner.dynamic:
        with pytest.raises(ImageError, match="fixed at 160x128 px, got a batch of 224x96"):
            runner.run(other)
        return
    for name, value in TorchRunner(source.network).run(other).items():
        np.testing.assert_allclose(runner.run(other)[name], value, atol=1e-4)


@each_fp32
@pytest.mark.parametrize("name", ["astronaut", "hopper"])
def test_same_boxes_as_torch(
    opener: Opener,
    name: str,
    astronaut: Any,
    hopper_path: Path,
    source: Source,
    lively_size: tuple[int, int],
) -> None:
    """At score > .3, boxes and landmarks agree within 0.1 px of the photo and scores within .001,
    in the same order."""
    image = astronaut if name == "astronaut" else read_image(hopper_path)
    image = letterbox(image, *lively_size)[0]  # so that dynamic and fixed files get the same input
    reference = _detect(TorchRunner(source.network), image)
    assert len(reference) > 5
    found = _detect(opener(), image)
    assert len(found) == len(reference)
    np.testing.assert_allclose(found.scores, reference.scores, atol=1e-3)
    np.testing.assert_allclose(found.boxes, reference.boxes, atol=0.1)
    with_landmarks = head_layout(source.network.architecture).landmarks > 0
    assert (found.landmarks is not None) == (reference.landmarks is not None) == with_landmarks
    if found.landmarks is not None and reference.landmarks is not None:
        np.testing.assert_allclose(found.landmarks, reference.landmarks, atol=0.1)
        assert np.ptp(found.landmarks, axis=1).min() > 1, "five points of a face, not one"


def _detect(runner: Runner, image: Any) -> Detections:
    with Detector(runner, score_threshold=0.3, size=max(image.shape)) as detector:
        return detector.detect(image)


def _rewritten(
    bundle: Bundle, folder: Path, files: dict[str, bytes] | None = None, **changes: Any
) -> Bundle:
    """A copy of ``bundle`` with other files or manifest fields, and matching hashes."""
    contents = {name: bundle.read(name) for name in bundle.manifest.files} | (files or {})
    return write_bundle(
        folder, dataclasses.replace(bundle.manifest, contract=None, **changes), contents
    )


@each_file
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "picture"}, "picture"),
        ({"width": 192}, r"the file takes \[1, .*its manifest says \[1"),
        ({"dtype": "uint8"}, "has no uint8 input"),
    ],
)
def test_a_file_that_breaks_its_manifest(
    kind: Kind,
    exported: Callable[..., Bundle],
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
) -> None:
    bundle = exported(*kind)
    if "width" in change and kind[2]:
        pytest.skip("a file of any size has no size to break")
    spec = dataclasses.replace(bundle.manifest.input, **change)
    with pytest.raises(BundleError, match=message):
        open_runner(_rewritten(bundle, tmp_path / "b", input=spec))


@each_file
def test_outputs_that_are_not_in_the_file(
    kind: Kind, exported: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = exported(*kind)
    outputs = {**bundle.manifest.outputs, "cls_8": "scores"}
    with pytest.raises(BundleError, match="no output 'scores' that its manifest names"):
        open_runner(_rewritten(bundle, tmp_path / "b", outputs=outputs))


@each_file
@pytest.mark.parametrize("damage", ["half", "empty", "text"])
def test_a_damaged_model_with_a_matching_hash(
    kind: Kind, exported: Callable[..., Bundle], tmp_path: Path, damage: str
) -> None:
    """Damages each file of a Bundle in turn."""
    bundle = exported(*kind)
    for i, name in enumerate(bundle.manifest.files):
        content = bundle.read(name)
        content = {
            "half": content[: len(content) // 2],
            "empty": b"",
            "text": b"not a model " * 50,
        }[damage]
        with pytest.raises(BundleError, match="cannot be loaded") as caught:
            open_runner(_rewritten(bundle, tmp_path / f"b{i}", {name: content}))
        assert "\n" not in str(caught.value)


@each_file
def test_a_wrong_hash(kind: Kind, exported: Callable[..., Bundle], tmp_path: Path) -> None:
    """One changed bit in any file is enough."""
    for i, name in enumerate(exported(*kind).manifest.files):
        copy = _rewritten(exported(*kind), tmp_path / f"b{i}")
        content = bytearray(copy.read(name))
        content[len(content) // 2] ^= 1
        copy.file(name).write_bytes(content)
        with pytest.raises(BundleError, match="SHA-256 differs"):
            open_runner(copy)


@each_file
def test_missing_runtime(
    kind: Kind, exported: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = exported(*kind)
    monkeypatch.setattr("edgeface.backends.has_module", lambda name: False)
    with pytest.raises(MissingExtraError, match=rf"run: pip install 'edgeface\[{kind[0]}\]'"):
        open_runner(bundle)


def test_missing_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeface.zoo.get_entry", lambda name: None)
    monkeypatch.setattr("edgeface.runners.torch.has_module", lambda name: False)
    with pytest.raises(MissingExtraError, match=r"instead of an exported Bundle .*edgeface\[zoo\]"):
        TorchRunner.open("edgeface-n")


def test_tensors_outside_of_an_onnx_file(exported: Callable[..., Bundle], tmp_path: Path) -> None:
    """Such tensors would be read, unchecked, from the folder that the program runs in."""
    onnx = importlib.import_module("onnx")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    bundle = exported("onnx")
    model = onnx.load_from_string(bundle.read())
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    onnx.external_data_helper.set_external_data(largest, "weights.bin")
    largest.ClearField("raw_data")
    name = bundle.manifest.primary
    moved = _rewritten(bundle, tmp_path / "b", {name: model.SerializeToString()})
    with pytest.raises(BundleError, match="it has tensors in other files"):
        open_runner(moved)


def test_threads_of_torch_are_put_back(lively: Source, batch: Any) -> None:
    torch = importlib.import_module("torch")
    before = torch.get_num_threads()
    runner = TorchRunner(lively.network, threads=before + 1)
    runner.run(batch)
    assert torch.get_num_threads() == before
    others = [TorchRunner(lively.network, threads=n) for n in (before + 1, before + 2)]
    batches = np.repeat(batch, 20, axis=0)
    threads = [threading.Thread(target=other.run, args=(batches,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runner.run(batch)
    assert torch.get_num_threads() == before


def test_threads_of_torch_are_put_back_where_another_thread_computes_on() -> None:
    torch = importlib.import_module("torch")
    before = torch.get_num_threads()
    inside, ended = threading.Event(), threading.Event()
    found: list[int] = []

    def compute() -> None:
        with _THREAD_COUNT.of(before + 1):
            inside.set()
            ended.wait(60)
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=compute)
    thread.start()
    inside.wait(60)
    with _THREAD_COUNT.of(before + 2):
        pass
    assert torch.get_num_threads() == before
    ended.set()
    thread.join()
    assert found == [before + 1, before]
