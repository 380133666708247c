"""A server that says what it is told to say, whatever it is asked: answers that no ordinary server gives."""

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Iterator


@dataclasses.dataclass
class Speaker:
    """What a server was asked, how many connections it has, and how many of them their clients have closed."""

    url: str
    asked: threading.Semaphore
    closed: threading.Semaphore


@contextlib.contextmanager
def serve(answer: bytes | None, *, hangs_up: bool = True) -> Iterator[Speaker]:
    """A server that says the same to every first request of a connection and hangs up, or waits until its client does; None: only waits."""
    listener = socket.create_server(("127.0.0.1", 0))
    told = Speaker(f"http://127.0.0.1:{listener.getsockname()[1]}/", threading.Semaphore(0), threading.Semaphore(0))

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            told.asked.release()
            connection.sendall(answer or b"")
            if answer is None or not hangs_up:
                connection.recv(4096)
                told.closed.release()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=[listener.accept()[0]], daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
