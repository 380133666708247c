"""What a person sees: a command on a pseudo-terminal, and its output as the screen shows it in the end."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence

ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


def run(command: Sequence[str], *, columns: int = 80, rows: int = 40, timeout_seconds: float = 600, **more: object) -> tuple[int, str]:
    """Exit code and everything that a command wrote to a terminal of this size."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")} | {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True, **more)
    os.close(slave)
    found = bytearray()
    try:
        while piece := _read(master):
            found += piece
        return process.wait(timeout_seconds), found.decode(errors="replace")
    finally:
        process.kill()
        os.close(master)


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # Linux' way to say that nobody holds the other side any more
        return b""


def screen(output: str) -> list[str]:
    """The lines that are left of an output: of the escapes, those that go up and that clear a line are obeyed, colours dropped."""
    lines, y, x = [""], 0, 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", output):
        if part == "\n":
            y, x = y + 1, 0
            lines += [""] * (y + 1 - len(lines))
        elif part == "\r":
            x = 0
        elif escape := ESCAPE.fullmatch(part):
            number, kind = escape[1], escape[2]
            y = max(0, y - int(number or 1)) if kind == "A" else y
            lines[y] = "" if kind == "K" else lines[y]
        else:
            lines[y] = lines[y][:x].ljust(x) + part + lines[y][x + len(part) :]
            x += len(part)
    return [line.rstrip() for line in lines]
