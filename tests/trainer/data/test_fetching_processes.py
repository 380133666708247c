"""Fetching by the native core in programs of their own: how they end, that they fork, and which servers they trust."""

import os
import pathlib
import ssl
import subprocess
import sys

import pytest

from patho_trainer.data import fetching
from tests.cluster import pki
from tests.trainer import servers, speaker

if not fetching.fetches():
    pytest.skip("NOT RUN: native fetch: make native builds it", allow_module_level=True)

DATA = bytes(range(256))
ROOT = pathlib.Path(__file__).parents[3]

STORY = """
import asyncio, os, sys, threading
from patho_api import common
from patho_trainer.data import fetching, storage
url, what = sys.argv[1:]
bucket = storage.Bucket(common.Storage(endpoint=os.environ.get("ENDPOINT", ""), anonymous=True))
read = lambda: bytes(asyncio.run(bucket.read_checked_async(url, [5], [4]))[1][0])
alone = lambda *_: sys.exit("left to obstore")
storage.Bucket._by_obstore = alone
if what == "leaves":
    threading.Thread(target=read, daemon=True).start()
    sys.stdin.readline()
elif what == "forks":
    print(read())
    child = os.fork()
    if child == 0:
        print(read(), flush=True)
        os._exit(0)
    sys.exit(os.waitpid(child, 0)[1] or print(read()))
else:
    print(read())
"""


def begin(url, what, **environment):
    command = [sys.executable, "-c", STORY, url, what]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=os.environ | environment, cwd=ROOT, text=True, **pipes)


def tell(url, what, **environment):
    """Output and errors of a story."""
    return begin(url, what, **environment).communicate(timeout=60)


def test_a_program_ends_while_requests_are_on_their_way():
    with speaker.serve(None) as server:
        process = begin(server.url + "x", "leaves")
        server.asked.acquire()
        assert process.communicate("\n", timeout=20) == ("", "")
    assert process.returncode == 0


def test_a_fork_fetches_too_and_its_parent_goes_on(web):
    (web.folder / "x").write_bytes(DATA)
    out, err = tell(web.url + "x", "forks")
    assert out.splitlines() == [str(DATA[5:9])] * 3, err


@pytest.fixture
def secure(tmp_path):
    """An S3 server by TLS, and the file of its authority."""
    authority = pki.authority(tmp_path / "pki")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.server("server", "server", ["127.0.0.1", "localhost"]))
    folder = tmp_path / "web"
    (folder / "bucket").mkdir(parents=True)
    (folder / "bucket" / "x").write_bytes(DATA)
    with servers.WebServer(folder, context) as web:
        yield web.url, str(authority.file)


@pytest.mark.parametrize("url", ["s3://bucket/x", ""])
def test_an_authority_of_ones_own_is_trusted_where_ssl_cert_file_names_it(secure, url):
    server, authority = secure
    asked = {"ENDPOINT": server} if url else {}
    out, err = tell(url or f"{server}bucket/x", "reads", SSL_CERT_FILE=authority, SSL_CERT_DIR="", **asked)
    assert out.splitlines() == [str(DATA[5:9])], err


def test_a_server_that_nobody_vouches_for_is_not_trusted(secure):
    assert "left to obstore" in tell(f"{secure[0]}bucket/x", "reads")[1]
