"""The page in headless Chromium, with a photo and a fake camera, finds the Detector's faces.

It sends no request to anywhere else. `edgeface demo` serves the right files and nothing more."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import CHROMIUM

from edgeface import zoo
from edgeface.bundle import Bundle
from edgeface.cli.demo import HEADERS, PACKAGES, PAGE, make_server
from edgeface.detector import Detector
from edgeface.images import letterbox

ROOT = Path(__file__).parents[2]
MODULES = Path(os.environ.get("EDGEFACE_NODE_MODULES", PAGE / "node_modules"))
HERE = Path(__file__).parent


def served(folders: dict[str, Path]) -> Iterator[int]:
    with make_server(folders, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    for name in ("page", "modules", "bundle"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "page" / "index.html").write_text("the page")
    (tmp_path / "page" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "modules" / "a.mjs").write_text("export {}")
    (tmp_path / "bundle" / "m.tflite").write_bytes(b"model")
    yield from served(
        {
            "models/mine": tmp_path / "bundle",
            "node_modules": tmp_path / "modules",
            "": tmp_path / "page",
        }
    )


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


def test_what_is_served(port: int) -> None:
    status, body, headers = get(port, "/")
    assert (status, body) == (200, b"the page")
    assert HEADERS.items() <= headers.items()
    assert get(port, "/models.json")[1] == b'["mine"]'
    assert get(port, "/models/mine/m.tflite?x=1")[:2] == (200, b"model")
    assert get(port, "/node_modules/a.mjs")[2]["Content-Type"] == "text/javascript"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/models/mine/../../secret.txt",
        "/link.txt",
        "/models/other/m.tflite",
        "/node_modules/",
        "/models/mine",
        "/%00",
        "/" + "x" * 300,
        "http://[/",
    ],
)
def test_what_is_not_served(port: int, path: str) -> None:
    assert get(port, path)[0] == 404


def test_a_browser_that_leaves_is_no_error(
    port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bundle" / "m.tflite").write_bytes(bytes(20_000_000))  # more than a socket buffers
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /models/mine/m.tflite HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(9) == b"HTTP/1.0 "
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    while any("process_request" in thread.name for thread in threading.enumerate()):
        time.sleep(0.01)
    assert get(port, "/")[0] == 200 and capfd.readouterr().err == ""


def test_at_port_80_browsers_leave_the_port_out(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/", headers={"Host": "127.0.0.1"})
    assert connection.getresponse().status == 200


def test_a_foreign_name_for_this_machine_is_refused(port: int) -> None:
    assert get(port, "/", host="evil.example")[0] == 403


def test_what_is_missing_is_named(
    edgeface: Any,
    exported: Callable[..., Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = exported("tflite").path
    code, _, err = edgeface("demo", "--model", bundle, "--packages", tmp_path)
    assert code == 2 and "npm install --prefix" in err and err.count("\n") == 1
    code, _, err = edgeface("demo", "--model", bundle, "--page", tmp_path)
    assert code == 2 and "there is no page in" in err and err.count("\n") == 1
    for name in PACKAGES:
        (tmp_path / name).mkdir(parents=True)
    code, _, err = edgeface(
        "demo", "--model", exported("ncnn").path, "--packages", tmp_path, "--no-browser"
    )
    assert code == 2 and "does not run in the page" in err and err.count("\n") == 1
    twin = tmp_path / "twin" / bundle.name
    shutil.copytree(bundle, twin)
    code, _, err = edgeface("demo", "--model", bundle, "--model", twin, "--no-browser")
    assert code == 2 and "have one name in the page" in err and err.count("\n") == 1
    monkeypatch.chdir(twin)
    code, _, err = edgeface("demo", "--model", bundle, "--model", ".", "--no-browser")
    assert code == 2 and "have one name in the page" in err and err.count("\n") == 1
    code, _, err = edgeface("demo", "--model", "edgeface-s", "--no-browser")
    assert code == 2 and "make one with: edgeface export --target tflite --model edgeface-s" in err
    code, _, err = edgeface("demo", "--model", "edgeface-n-ncnn-int8-640x480", "--no-browser")
    assert code == 2 and "ncnn-int8-640x480 does not run in the page: name a Bundle" in err
    code, _, err = edgeface("demo", "--model", "edgeface-n-tflite-int8-640x480", "--no-browser")
    assert code == 2 and "LiteRT.js takes no INT8 input" in err and err.count("\n") == 1


@pytest.mark.slow
def test_in_chromium(tmp_path: Path) -> None:
    """Boxes in PNG photos are within .05 px of the Detector's.

    The camera's boxes need only be there, at the right place: the browser scales and codes
    frames."""
    from export import ExportRequest, export_model, load_source

    node = need_browser("playwright-core")
    bundles = [
        export_model(load_source("edgeface-n"), ExportRequest(target, "fp32", 320, 320), tmp_path)
        for target in ("tflite", "onnx")
    ]
    folders = {f"models/{made.bundle.path.name}": made.bundle.path for made in bundles}
    photo = cv2.imread(str(ROOT / "docs" / "photo.jpg"))
    assert photo is not None and cv2.imwrite(str(tmp_path / "photo.png"), photo)
    config = {
        "models": [name.removeprefix("models/") for name in folders],
        "photo": str(tmp_path / "photo.png"),
        "camera": str(fake_camera(photo, tmp_path / "camera.y4m")),
        "shots": str(tmp_path),
    }
    for port in served({**folders, "node_modules": MODULES, "": PAGE}):
        address = f"http://127.0.0.1:{port}/"
        found = in_browser(node, {**config, "address": address})
        assert found["errors"] == [] and found["isolated"] is True
        assert all(url.startswith((address, "blob:", "data:")) for url in found["requests"])
        for made in bundles:
            with Detector.open(made.bundle.path) as detector:
                expected = detector.detect(photo[:, :, ::-1].astype(np.uint8))
            faces = found["photos"][made.bundle.path.name]["faces"]
            assert len(faces) == len(expected) > 0
            boxes = [face["box"] for face in faces]
            np.testing.assert_allclose(boxes, expected.boxes, atol=0.05)
            assert expected.landmarks is not None
            points = [face["landmarks"] for face in faces]
            np.testing.assert_allclose(points, expected.landmarks, atol=0.05)
        assert "FPS" in found["status"] and len(found["camera"]["faces"]) > 0


@pytest.mark.slow
def test_mediapipe_in_chromium(astronaut: Any, tmp_path: Path) -> None:
    """Ready files adapted to MediaPipe's ObjectDetector find the Detector's face within a pixel.

    They run in @mediapipe/tasks-vision, which cuts off fractions of a pixel."""
    from export.apis import adapt

    node = need_browser("playwright-core", "@mediapipe/tasks-vision")
    bundle = Bundle.open(zoo.BUNDLES / "edgeface-n-tflite-fp32-640x480")
    made = [adapt(bundle, api, tmp_path / "dist") for api in ("mediapipe", "task-library")]
    photo = letterbox(astronaut, 640, 480)[0]
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<!doctype html>")
    assert cv2.imwrite(str(tmp_path / "page" / "photo.png"), photo[:, :, ::-1])
    folders = {f"models/{one.path.name}": one.path for one in made}
    models = [f"/models/{one.path.name}/{one.manifest.primary}" for one in made]
    with Detector.open(bundle.path) as detector:
        expected = detector.detect(photo)
    assert len(expected) == 1
    x1, y1, x2, y2 = expected.boxes[0]
    for port in served({**folders, "node_modules": MODULES, "": tmp_path / "page"}):
        address = f"http://127.0.0.1:{port}/"
        config = {"address": address, "models": models, "photo": "/photo.png"}
        for faces in in_browser(node, config, "mediapipe.mjs"):
            assert len(faces) == 1 and faces[0]["categories"][0]["categoryName"] == "face"
            assert abs(faces[0]["categories"][0]["score"] - expected.scores[0]) < 1e-3
            box = [faces[0]["boundingBox"][k] for k in ("originX", "originY", "width", "height")]
            assert np.abs(np.array(box) - (x1, y1, x2 - x1, y2 - y1)).max() <= 1


def need_browser(*modules: str) -> str:
    """Path of node; skips the test if node, Chromium or one of the modules is missing."""
    node = shutil.which("node")
    if not CHROMIUM or not node:
        pytest.skip("chromium and node are needed: apt install chromium nodejs")
    for name in modules:
        if not (MODULES / name).is_dir():
            pytest.skip(f"{MODULES} lacks {name}: npm install it, or set EDGEFACE_NODE_MODULES")
    return node


def in_browser(node: str, config: dict[str, Any], script: str = "page.mjs") -> Any:
    config = {"playwright": str(MODULES / "playwright-core"), "chromium": CHROMIUM, **config}
    done = subprocess.run(
        [node, str(HERE / script), json.dumps(config)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def fake_camera(photo: Any, path: Path) -> Path:
    """Write ten frames of the photo, 640x480, as a file that Chromium takes for a camera."""
    frame = cv2.cvtColor(cv2.resize(photo, (640, 480)), cv2.COLOR_BGR2YUV_I420)
    head = b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420\n"
    path.write_bytes(head + (b"FRAME\n" + frame.tobytes()) * 10)
    return path
