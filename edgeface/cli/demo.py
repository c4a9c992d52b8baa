"""``edgeface demo``: serves the web page of ``examples/web`` to this machine only."""

from __future__ import annotations

import json
import mimetypes
import os
import shutil
import sys
import webbrowser
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

import typer

from edgeface.cli.flags import DEFAULT_MODEL
from edgeface.cli.output import say
from edgeface.cli.program import stoppable
from edgeface.errors import OptionError, OutputError

if TYPE_CHECKING:
    from edgeface.bundle import Bundle

EPILOG = """Examples:

npm install --prefix examples/web && edgeface demo

edgeface demo --model dist/edgeface-n-tflite-fp32-320x320 --port 9000 --no-browser"""

PAGE = Path(__file__).parents[2] / "examples" / "web"
TARGETS = ("tflite", "onnx")
"""targets that run in a browser, the faster runtime first"""
PACKAGES = ("@litertjs/core", "@litertjs/wasm-utils", "onnxruntime-web")
HEADERS = {
    # A page needs these two to use threads; it fetches nothing from elsewhere with or without them.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
        "connect-src 'self' blob: data:; img-src 'self' blob: data:"
    ),
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}

Model = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="TFLite or ONNX Bundle folder, or a model with ready files; may be repeated.",
        show_default=DEFAULT_MODEL,
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any free one.")]
Packages = Annotated[
    Path | None,
    typer.Option(help="node_modules folder with the runtimes. Default: the one in --page."),
]
Page = Annotated[
    Path,
    typer.Option(help="Folder that holds the page.", show_default="examples/web of the checkout"),
]
Browser = Annotated[bool, typer.Option(help="Open the page in a browser.")]


def command(
    model: Model = None,
    port: Port = 8000,
    packages: Packages = None,
    page: Page = PAGE,
    browser: Browser = True,
) -> None:
    folders = {
        **{f"models/{_name(bundle)}": bundle.path for bundle in _bundles(model)},
        "node_modules": _packages(page, packages),
        "": page,
    }
    with stoppable("the page is no longer served"), make_server(folders, port) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        say(f"{address} serves {', '.join(n[7:] for n in folders if n[:7] == 'models/')}")
        say("Ctrl-C stops it; nothing leaves this machine")
        if browser:
            webbrowser.open(address)
        server.serve_forever()


def make_server(folders: dict[str, Path], port: int) -> ThreadingHTTPServer:
    """A server of the files below ``folders`` on the loopback interface.

    folders: prefix of the path -> folder; the first that matches counts. Raises OutputError if it
    cannot serve on the port."""
    try:
        return _Server(("127.0.0.1", port), partial(_Files, folders))
    except OSError as error:
        raise OutputError(
            f"cannot serve on port {port}: {error.strerror or error}: pass another --port, or 0 for"
            " any that is free"
        ) from None


class _Server(ThreadingHTTPServer):
    def handle_error(self, *about: Any) -> None:
        """Ignore a browser that closes the connection before the answer, as with a closed page."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*about)


class _Files(BaseHTTPRequestHandler):
    """Answers GET requests for files, and for models.json with the names of the models."""

    def __init__(self, folders: dict[str, Path], *rest: object) -> None:
        self.folders = folders
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0]).lstrip("/") or "index.html"
        if self.headers.get("Host", "").partition(":")[0] not in ("127.0.0.1", "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)  # a foreign host name that resolves to here
        elif path == "models.json":
            names = [name[7:] for name in self.folders if name.startswith("models/")]
            self._send("application/json", json.dumps(names).encode())
        elif (file := self._file(path)) is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            kind = TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0]
            self._send(kind or "application/octet-stream", file.read_bytes())

    def _file(self, path: str) -> Path | None:
        """The file that ``path`` names, or None if it is not inside its folder."""
        for prefix, folder in self.folders.items():
            if not prefix or path.startswith(f"{prefix}/"):
                try:
                    file = (folder / path[len(prefix) :].lstrip("/")).resolve()
                    inside = file.is_relative_to(folder.resolve())
                    return file if inside and file.is_file() else None
                except (OSError, ValueError):  # not a valid file name
                    return None
        return None

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {**HEADERS, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing per request."""


def _packages(page: Path, packages: Path | None) -> Path:
    if not (page / "index.html").is_file():
        raise OptionError(
            f"there is no page in {page}: it lies in examples/web of a checkout: clone the project"
            " and run the same command there, or name the folder with --page"
        )
    folder = packages or page / "node_modules"
    missing = [name for name in PACKAGES if not (folder / name).is_dir()]
    if missing:
        npm = "" if shutil.which("npm") else " (npm is missing here, too: it comes with Node.js)"
        raise OptionError(
            f"{folder} lacks {', '.join(missing)}: run: npm install --prefix {page}{npm}, or name a"
            " node_modules folder with --packages"
        )
    return folder


def _bundles(models: list[str] | None) -> list[Bundle]:
    from edgeface.bundle import Bundle

    found = [Bundle.open(path) for model in models or [DEFAULT_MODEL] for path in _folders(model)]
    for bundle in found:
        same = [other.path for other in found if _name(other) == _name(bundle)]
        if len({path.resolve() for path in same}) > 1:
            raise OptionError(f"{same[0]} and {same[1]} have one name in the page: rename one")
        manifest = bundle.manifest
        if manifest.input.dtype == "int8":
            raise OptionError(
                f"{bundle.path} does not run in the page: LiteRT.js takes no INT8 input: name the"
                " float Bundle that it was made of, or a model"
            )
        if manifest.target not in TARGETS or manifest.contract is None:
            raise OptionError(
                f"{bundle.path} does not run in the page: name a Bundle with a contract, of target"
                f" {' or '.join(TARGETS)}, such as `edgeface export --target tflite` makes"
            )
    return found


def _name(bundle: Bundle) -> str:
    """Name of a Bundle's folder, also of ``.`` and ``..``."""
    return Path(os.path.abspath(bundle.path)).name  # noqa: PTH100


def _folders(model: str) -> list[Path]:
    """The folder of a Bundle or of a ready file, or for a network those that run in the page."""
    from edgeface import zoo
    from edgeface.bundle import MANIFEST

    named = [file.path for file in zoo.ready_files() if file.name == model]
    if not (named or zoo.is_network(model)) or (Path(model) / MANIFEST).is_file():
        return [Path(model)]
    usable = [
        file
        for file in zoo.ready_files(model)
        if file.target in TARGETS and file.precision == "fp32"
    ]
    if not (named or usable):
        raise OptionError(
            f"{model} has no ready file that runs in the page: make one with: edgeface export"
            f" --target tflite --model {model}, and name its folder"
        )
    usable.sort(key=lambda file: TARGETS.index(file.target))
    return named or [file.path for file in usable]
