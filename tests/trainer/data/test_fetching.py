"""Fetching by the native core: the bytes that obstore fetches, from real servers; whatever goes wrong is left to obstore."""

import asyncio
import time

import pytest

from patho_api import common
from patho_trainer.data import fetching, storage, stores, urls
from tests.trainer import speaker

if not fetching.fetches():
    pytest.skip("NOT RUN: native fetch: make native builds it", allow_module_level=True)

DATA = bytes(range(256)) * 400
STARTS, SIZES = [0, 100, 250, 90_000, 70_000], [100, 50, 5_000, 1_000, 0]
EXPECTED = [DATA[start : start + size] for start, size in zip(STARTS, SIZES, strict=True)]


def read(bucket, url, starts=STARTS, sizes=SIZES):
    info, found = asyncio.run(bucket.read_checked_async(url, starts, sizes))
    return info, [bytes(buffer) for buffer in found]


@pytest.fixture
def alone(monkeypatch):
    """obstore fetches no range: what comes back is the core's."""

    async def refuse(self, url, starts, sizes):
        raise AssertionError(f"left to obstore: {url}")

    monkeypatch.setattr(storage.Bucket, "_by_obstore", refuse)


@pytest.mark.parametrize("kind", ["s3", "gcs", "az"])
def test_the_core_fetches_from_every_cloud_and_tells_the_same_of_the_object(kind, request, alone):
    store = request.getfixturevalue(kind)
    bucket = store.bucket()
    bucket.write(store.url + "a/b c+d.bin", DATA)
    info, found = read(bucket, store.url + "a/b c+d.bin")
    assert found == EXPECTED
    assert info == bucket.head(store.url + "a/b c+d.bin")


def test_the_core_fetches_from_a_web_server_and_counts_requests_and_bytes(web, alone):
    (web.folder / "a b").write_bytes(DATA)
    bucket = storage.Bucket()
    assert read(bucket, web.url + "a b")[1] == EXPECTED
    assert bucket.requests == {("http", "ok"): 3}
    assert bucket.received == {"http": sum(SIZES)}
    assert web.requests == {("GET", "a b"): 3}


@pytest.mark.parametrize("fault", [503, 429, 403, "reset", "short"])
def test_what_goes_wrong_with_one_range_is_asked_for_once_more_and_counted(web, fault):
    (web.folder / "x").write_bytes(DATA)
    bucket = storage.Bucket()
    web.chaos = lambda number: fault if number == 1 else None
    assert read(bucket, web.url + "x")[1] == EXPECTED
    assert web.requests["GET", "x"] == 4
    assert bucket.requests == {("http", "ok"): 3, ("http", "retried"): 1}


def test_ranges_of_two_states_of_an_object_are_none(web):
    (web.folder / "x").write_bytes(DATA)

    def replace(number):
        if number == 2:
            (web.folder / "new").write_bytes(DATA[::-1])
            (web.folder / "new").rename(web.folder / "x")

    web.chaos = replace
    bucket = storage.Bucket()
    info, found = read(bucket, web.url + "x")
    assert found == [DATA[::-1][start : start + size] for start, size in zip(STARTS, SIZES, strict=True)]
    assert info == bucket.head(web.url + "x")


@pytest.fixture
def keyed(web, tmp_path):
    """A bucket whose keys lie in a mounted secret, and what changes them there and at the server."""
    (web.folder / "bucket").mkdir()
    (web.folder / "bucket" / "x").write_bytes(DATA)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "secret_access_key").write_text("s")

    def renew(key):
        web.access_key = key
        (secret / "access_key_id").write_text(key)

    renew("first")
    return storage.Bucket(common.Storage(endpoint=web.url, secret_name="key"), str(secret)), renew


def test_renewed_credentials_reach_the_core(web, keyed):
    bucket, renew = keyed

    async def story():
        requests = []
        for key in ("first", "second", "second"):
            renew(key)
            before = web.requests["GET", "bucket/x"]
            await bucket.read_checked_async("s3://bucket/x", [5], [10])
            requests.append(web.requests["GET", "bucket/x"] - before)
        return requests

    assert asyncio.run(story()) == [1, 3, 1]  # refused to the core and to obstore, then answered to obstore; then to the core


def test_columns_on_their_way_while_credentials_are_renewed_come_all(web, keyed):
    """The first of many to be refused has the store opened anew; the others were sent with the old keys too."""
    bucket, renew = keyed

    async def story():
        await bucket.read_checked_async("s3://bucket/x", [5], [4])
        renew("second")
        web.chaos = lambda number: "slow" if number % 3 else None  # so that refusals come at different times
        read = lambda k: bucket.read_checked_async("s3://bucket/x", [k], [4])  # noqa: E731
        return [bytes(found[0]) for _, found in await asyncio.gather(*map(read, range(12)))]

    assert asyncio.run(asyncio.wait_for(story(), 60)) == [DATA[k : k + 4] for k in range(12)]


def test_who_waits_for_a_fetcher_that_is_closed_gets_nothing_and_does_not_wait():
    with speaker.serve(None) as server:

        async def story():
            fetcher = core_fetcher(server.url)
            task = asyncio.create_task(fetcher.fetch("x", [5], [4]))
            await asyncio.to_thread(server.asked.acquire)
            fetcher.close()
            return await asyncio.wait_for(task, 5)

        assert asyncio.run(story()).meta is None


def test_the_core_keeps_to_the_rate_of_requests(web):
    (web.folder / "x").write_bytes(DATA)
    started = time.monotonic()
    bucket = storage.Bucket(common.Storage(options={"requests_per_second": "20"}))
    for _ in range(3):
        read(bucket, web.url + "x")
    assert time.monotonic() - started >= 6 / 20


def test_where_nothing_comes_by_the_core_it_is_not_asked_for_a_while(web):
    bucket = storage.Bucket()

    async def story():
        for _ in range(fetching.PATIENCE + 3):
            with pytest.raises(storage.NotFound):
                await bucket.read_checked_async(web.url + "nowhere", [0], [10])

    asyncio.run(story())
    assert web.requests["GET", "nowhere"] == 2 * fetching.PATIENCE + 3


@pytest.mark.parametrize(
    ("url", "settings", "environment"),
    [
        ("/a/b", {}, {}),
        ("memory://a/b", {}, {}),
        ("s3://a/b", {"options": {"transport": "fsspec"}}, {}),
        ("s3://a/b", {"anonymous": True}, {"https_proxy": "http://proxy:3128"}),
        ("http://a.b/c", {}, {"http_proxy": "http://proxy:3128", "no_proxy": "a.c"}),
        ("s3://a/b", {"options": {"proxy_url": "http://proxy:3128"}}, {}),
        ("s3://a/b", {"options": {"AWS_ALLOW_INVALID_CERTIFICATES": "true"}}, {}),
        ("gs://a/b", {}, {"GOOGLE_PROXY_URL": "http://proxy:3128"}),
    ],
)
def test_some_places_are_not_for_the_core(url, settings, environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert stores.core_arguments(urls.parse(url), common.Storage(**settings), None, {}) is None


def test_a_host_without_a_proxy_is_for_the_core(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1,a.b")
    assert stores.core_arguments(urls.parse("http://a.b/c"), common.Storage(), None, {}) == ("http", "a.b", {}, True)


HEAD = b'Content-Range: bytes 5-8/99\r\nETag: "1"\r\nLast-Modified: Wed, 25 Nov 2026 01:00:00 GMT\r\n'


@pytest.mark.parametrize(
    ("answer", "served"),
    [
        (b"HTTP/1.1 206 OK\r\nContent-Length: 4\r\n" + HEAD + b"\r\nbody", True),
        (b"HTTP/1.0 206 OK\r\n" + HEAD + b"\r\nbody", True),
        (b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n3\r\nbod\r\n1;x=y\r\ny\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 OK\r\nContent-Length: 4\r\n" + HEAD + b"\r\nbody", True),
        (b"HTTP/1.1 206 OK\r\nContent-Length: 4\r\n" + HEAD + b"\r\nbod", False),
        (b"HTTP/1.1 206 OK\r\n" + HEAD + b"\r\nbod", False),
        (b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n3\r\nbod\r\n", False),
        (b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\nffffffffffffffff\r\nbod\r\n", False),
        (b"HTTP/1.1 206 OK\r\nContent-Length: 99999999999999999999\r\n" + HEAD + b"\r\nbody", False),
        (b"HTTP/1.1 206 OK\r\nContent-Length: 4\r\n" + HEAD.replace(b"5-8", b"6-9") + b"\r\nbody", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", False),
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 206 OK\r\nX: " + b"x" * 100_000, False),
        (b"\x00\xff garbage\r\n\r\n", False),
        (b"", False),
    ],
)
def test_every_way_to_send_a_body_is_understood_and_everything_else_is_no_answer(answer, served):
    with speaker.serve(answer) as server:
        assert ask(server.url) == (b"body" if served else None)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Length: 5\r\n" + HEAD,
        b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n5\r\nbo",
        b"HTTP/1.1 503 No\r\nContent-Length: 2000000\r\n",
    ],
)
def test_a_body_that_cannot_be_the_range_is_not_waited_for(head):
    with speaker.serve(head + b"\r\n", hangs_up=False) as server:
        started = time.monotonic()
        assert ask(server.url) is None
        assert time.monotonic() - started < 10  # silence is waited for 20 s


def test_a_connection_that_was_closed_while_idle_is_replaced():
    answer = b"HTTP/1.1 206 OK\r\nContent-Length: 4\r\n" + HEAD + b"\r\nbody"  # and then closes, without having said so
    with speaker.serve(answer) as server:

        async def story():
            fetcher = core_fetcher(server.url)
            return [(await fetcher.fetch("x", [5], [4])).buffers[0] for _ in range(4)]

        assert asyncio.run(story()) == [b"body"] * 4


def test_a_date_that_python_does_not_know_is_no_state_of_an_object():
    head = HEAD.replace(b'ETag: "1"\r\n', b"").replace(b"Wed, 25 Nov 2026", b"Thu, 25 Nov 19999")
    with speaker.serve(b"HTTP/1.1 206 OK\r\nContent-Length: 4\r\n" + head + b"\r\nbody") as server:

        async def story():
            return await asyncio.wait_for(core_fetcher(server.url).fetch("x", [5], [4]), 10)

        assert asyncio.run(story()).meta is None


def core_fetcher(url):
    root = url.split("//")[1].rstrip("/")
    return fetching.Fetcher(fetching.core.Fetcher("http", root, {}, True), asyncio.get_running_loop())


def ask(url):
    async def story():
        return await core_fetcher(url).fetch("x", [5], [4])

    (buffer,) = asyncio.run(story()).buffers
    return buffer and bytes(buffer)


def test_a_task_that_is_cancelled_closes_its_connections_at_once():
    with speaker.serve(None) as server:

        async def story():
            bucket = storage.Bucket()
            task = asyncio.create_task(bucket.read_checked_async(server.url + "x", STARTS, SIZES))
            await asyncio.to_thread(server.asked.acquire)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await asyncio.to_thread(server.closed.acquire, timeout=5)

        asyncio.run(story())
