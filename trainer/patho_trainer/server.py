"""What a pod serves while it runs: /metrics for Prometheus, /progress for the operator, /healthz for the kubelet."""

import http
import http.server
import threading
from typing import Any

from patho_trainer import metrics, workspace

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Server(http.server.ThreadingHTTPServer):
    """Serves the workspace of a run from a thread of the entrypoint, which outlives the workers that it restarts."""

    daemon_threads = True

    def __init__(self, space: workspace.Workspace, port: int) -> None:
        self.space = space
        super().__init__(("", port), _Handler)
        threading.Thread(target=self.serve_forever, name="http", daemon=True).start()


def start(space: workspace.Workspace, port: int) -> Server:
    """Serve on `port` (0: any free one). Where it is taken, as by a second run on the same laptop, any free port does."""
    try:
        return Server(space, port)
    except OSError as error:
        server = Server(space, 0)
        print(f"port {port} is taken ({error.strerror}): using {server.server_port}", flush=True)
        return server


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    timeout = 10.0  # seconds for a client to ask and to take the answer: one that does neither holds a thread no longer

    def do_GET(self) -> None:
        space = self.server.space
        if self.path == "/metrics":
            self._answer(metrics.exposition(space.metrics), TEXT)
        elif self.path == "/progress" and space.progress.exists():
            self._answer(space.progress.read_bytes(), "application/json")
        elif self.path == "/healthz":
            self._answer(b"ok\n", TEXT)
        else:
            self.send_error(http.HTTPStatus.NOT_FOUND)

    def _answer(self, body: bytes, content_type: str) -> None:
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Scrapes every few seconds are not worth a line."""
