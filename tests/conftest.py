"""Fixtures of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from networks import with_part

from edgeface.images import Image

if TYPE_CHECKING:
    from edgeface.bundle import Bundle
    from export import Source


def pytest_configure() -> None:
    """Make Ctrl-C work, since tests send it. A process that a script starts with ``&`` ignores it,
    as do its children: tests would wait for ever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def edgeface(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, stdout and stderr, C++ included, of ``edgeface arguments`` in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from edgeface.cli import main

        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of data sets, golden outputs and peer models: EDGEFACE_SHARED, or ``shared`` beside
    the checkout. Skips the test if it does not exist."""
    folder = Path(os.environ.get("EDGEFACE_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("the shared data are not there: set EDGEFACE_SHARED")
    return folder


@pytest.fixture(scope="session")
def astronaut() -> Image:
    """Portrait of Eileen Collins (NASA, public domain) from scikit-image: RGB [512, 512, 3]."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="session")
def hopper_path() -> Path:
    """JPEG file of a portrait of Grace Hopper (US Navy, public domain) from matplotlib."""
    cbook = pytest.importorskip("matplotlib.cbook", reason="matplotlib is not installed")
    return Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))


@pytest.fixture(scope="session")
def portraits(
    astronaut: Image, hopper_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of the two portraits, for calibration."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    folder = tmp_path_factory.mktemp("portraits")
    (folder / "hopper.jpg").write_bytes(hopper_path.read_bytes())
    assert cv2.imwrite(str(folder / "astronaut.png"), astronaut[:, :, ::-1])
    return folder


@pytest.fixture(scope="session")
def lively_size() -> tuple[int, int]:
    """Width and height of the exported test networks: small, so that a suite stays quick."""
    return (160, 128)


@pytest.fixture(scope="session")
def lively(astronaut: Image, lively_size: tuple[int, int]) -> Source:
    """edgeface-n with random weights whose scores pass .3 in about one cell of twenty: enough to
    compare boxes."""
    return _lively(0, letterboxed(astronaut, *lively_size))


@pytest.fixture(scope="session")
def pointed(astronaut: Image, lively_size: tuple[int, int]) -> Source:
    """``lively`` with landmarks."""
    return _lively(5, letterboxed(astronaut, *lively_size))


def letterboxed(photo: Image, width: int, height: int) -> Image:
    """A batch of one photo, resized and padded: uint8 RGB [1, height, width, 3]."""
    from edgeface.images import letterbox

    return letterbox(photo, width, height)[0][None]


def _lively(landmarks: int, batch: Image) -> Source:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from edgeface.models import get_architecture
    from export.source import random_source

    plain = get_architecture("edgeface-n")
    source = random_source(with_part(plain, "head", landmarks=landmarks), seed=3)
    head: Any = source.network.head
    with torch.no_grad():
        outputs = source.network(torch.from_numpy(batch).permute(0, 3, 1, 2).float())
        for cls, logits in zip(head.cls, outputs[:: len(outputs) // len(head.cls)], strict=True):
            cls.conv.bias -= torch.quantile(logits, 0.95) + 0.5
    return source


@pytest.fixture(scope="session")
def exported(
    lively: Source,
    pointed: Source,
    lively_size: tuple[int, int],
    portraits: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Bundle]:
    """``exported(target, precision="fp32", dynamic=False, landmarks=False)`` -> Bundle.

    Made from ``lively`` or ``pointed``, once per session; int8 is calibrated with the portraits.
    """
    made: dict[tuple[str, str, bool, bool], Bundle] = {}

    def make(
        target: str, precision: str = "fp32", dynamic: bool = False, landmarks: bool = False
    ) -> Bundle:
        from export import ExportRequest, export_model
        from quantize.pipeline import QuantizeRequest, quantize_model

        key = (target, precision, dynamic, landmarks)
        if key not in made:
            out = tmp_path_factory.mktemp("dist")
            if precision == "int8":
                floats = make(target, landmarks=landmarks)
                wanted = QuantizeRequest(target, bundle=floats.path, images=2)
                made[key] = quantize_model(wanted, out, calibration=portraits).bundle
            else:
                request = ExportRequest(target, precision, *lively_size, dynamic)
                made[key] = export_model(pointed if landmarks else lively, request, out).bundle
        return made[key]

    return make


@pytest.fixture(scope="session")
def write_mat() -> Callable[..., Path]:
    """``write_mat(root, images)`` -> root, with WIDER FACE ground truth of a few faces below it."""
    pytest.importorskip("scipy", reason="scipy is not installed")
    from official_mat import write_ground_truth

    return write_ground_truth


@pytest.fixture(scope="session")
def bundle(exported: Callable[..., Bundle]) -> str:
    """Folder of a Bundle with random weights."""
    return str(exported("onnx").path)


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory, astronaut: Image) -> dict[str, str]:
    """Kind of fault -> path that is not a readable image."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    whole = cv2.imencode(".jpg", astronaut)[1].tobytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return {p.stem: str(p) for p in folder.iterdir()} | {
        "missing": str(folder / "missing.jpg"),
        "folder": str(folder),
    }
