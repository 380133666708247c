"""A quick web server for ranges of files, of which some requests go wrong: python faulty.py FOLDER SHARE PORT.

Of `SHARE` of all requests, the same ones each time, a fifth each is answered 503, 429 with Retry-After, after SLOW_SECONDS, by half a
body, or by a reset. One event loop and no copies: several thousand requests a second, so that it is the client that is measured.
"""

import asyncio
import itertools
import os
import pathlib
import random
import sys

FAULTS = (503, 429, "reset", "slow", "short")
SLOW_SECONDS = 0.2
NUMBERS = itertools.count()


class Server(asyncio.Protocol):
    """One connection, kept alive. Requests come one after the other, whole in one packet, as HTTP clients send them."""

    def __init__(self, folder: pathlib.Path, share: float) -> None:
        self.folder, self.share = folder, share

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        lines = data.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        draw = random.Random(next(NUMBERS))
        fault = draw.choice(FAULTS) if draw.random() < self.share else None
        if fault == "slow":
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self.answer, method, path, headers)
        elif fault == "reset":
            self.transport.abort()
        elif fault in (503, 429):
            self.transport.write(b"HTTP/1.1 %d Fault\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n" % fault)
        else:
            self.answer(method, path, headers, short=fault == "short")

    def answer(self, method: str, path: str, headers: dict[str, str], *, short: bool = False) -> None:
        file, size, etag = opened(self.folder / path.lstrip("/"))
        first, _, last = headers.get("range", f"bytes=0-{size - 1}").removeprefix("bytes=").partition("-")
        start, stop = int(first), min(size, int(last or size - 1) + 1)
        lines = (f"Content-Length: {stop - start}", f"Content-Range: bytes {start}-{stop - 1}/{size}", f"ETag: {etag}")
        head = "\r\n".join(("HTTP/1.1 206 Partial", *lines, "", ""))
        length = 0 if method == "HEAD" else (stop - start) // 2 if short else stop - start
        self.transport.write(head.encode() + os.pread(file, length, start))
        if short:
            self.transport.close()


FILES: dict[pathlib.Path, tuple[int, int, str]] = {}


def opened(path: pathlib.Path) -> tuple[int, int, str]:
    if path not in FILES:
        FILES[path] = os.open(path, os.O_RDONLY), path.stat().st_size, f'"{path.stat().st_mtime_ns:x}"'
    return FILES[path]


async def main(folder: str, share: str, port: str) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Server(pathlib.Path(folder), float(share)), "127.0.0.1", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
