"""What a pod serves can only be read, and asking costs it little."""

import http.client
import socket

import pytest

from patho_trainer import server, workspace


@pytest.fixture
def served(tmp_path):
    """A server of an empty workspace."""
    found = server.start(workspace.Workspace(tmp_path), 0)
    yield found
    found.shutdown()
    found.server_close()


def ask(served, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", served.server_port, timeout=5)
    connection.request(method, path, body=b"x" if method in ("POST", "PUT") else None)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_only_reading_is_answered(served, method):
    assert ask(served, method, "/progress") == 501


@pytest.mark.parametrize("path", ["/", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/metrics/../../etc/passwd"])
def test_no_path_leads_to_a_file(served, path):
    assert ask(served, "GET", path) == 404


def test_a_request_line_without_end_is_refused(served):
    with socket.create_connection(("127.0.0.1", served.server_port), timeout=5) as client:
        client.sendall(b"GET /" + b"a" * 100_000)
        assert b" 414 " in client.recv(100)


def test_a_silent_client_is_let_go(served, monkeypatch):
    monkeypatch.setattr(server._Handler, "timeout", 0.1)
    with socket.create_connection(("127.0.0.1", served.server_port), timeout=5) as client:
        assert client.recv(1) == b""
