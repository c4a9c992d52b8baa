"""A camera that serves MJPEG on loopback, as IP cameras do."""

from __future__ import annotations

import http.server
import threading
from typing import Any


class Camera:
    """Serves a stream of about 50 frames per second until it is closed, and a whole video file."""

    def __init__(self, jpeg: bytes, clip: bytes) -> None:
        self.jpeg, self.clip = jpeg, clip
        self.sent, self.gone = 0, threading.Event()
        self.asked: list[str] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.gone.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(camera) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.asked.append(self.headers.get("Authorization", ""))
                if "private" in self.path and not camera.asked[-1]:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.end_headers()
                    return
                self.send_response(200)
                if self.path.endswith(".mp4"):
                    self.send_header("Content-Length", str(len(camera.clip)))
                    self.end_headers()
                    self.wfile.write(camera.clip)
                    return
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                self._stream()

            def _stream(self) -> None:
                try:
                    while not camera.gone.wait(0.02):
                        head = f"Content-Type: image/jpeg\r\nContent-Length: {len(camera.jpeg)}"
                        self.wfile.write(f"--frame\r\n{head}\r\n\r\n".encode())
                        self.wfile.write(camera.jpeg + b"\r\n")
                        camera.sent += 1
                except OSError:  # the viewer is gone
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
