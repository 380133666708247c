"""Buckets: the same behaviour on a disk, S3 and Google's protocol; one plain sentence for everything that goes wrong."""

import asyncio
import time
import tracemalloc

import pytest

from patho_api import common
from patho_trainer import errors
from patho_trainer.data import pace, storage
from tests.trainer import servers


def test_what_was_written_is_read(store):
    bucket = store.bucket()
    bucket.write(store.url + "a/b c.bin", b"0123456789")
    assert bucket.read(store.url + "a/b c.bin") == b"0123456789"
    assert bucket.head(store.url + "a/b c.bin").size == 10


def test_ranges_come_back_in_order_and_empty_ones_are_empty(store):
    bucket = store.bucket()
    bucket.write(store.url + "x", b"0123456789")
    found = bucket.read_ranges(store.url + "x", [7, 0, 5, 2], [3, 2, 0, 4])
    assert [bytes(b) for b in found] == [b"789", b"01", b"", b"2345"]


def test_the_first_answer_tells_which_object_the_ranges_are_of(store):
    bucket = store.bucket()
    bucket.write(store.url + "x", b"0123456789")
    info, found = asyncio.run(bucket.read_checked_async(store.url + "x", [7, 0, 2, 5], [3, 2, 1, 0]))
    assert [bytes(b) for b in found] == [b"789", b"01", b"2", b""]
    assert info == bucket.head(store.url + "x") == asyncio.run(bucket.head_async(store.url + "x"))


def test_a_conditional_write_loses_to_an_earlier_one(store):
    bucket = store.bucket()
    bucket.write(store.url + "x", b"first", if_absent=True)
    with pytest.raises(storage.AlreadyExists):
        bucket.write(store.url + "x", b"second", if_absent=True)
    assert bucket.read(store.url + "x") == b"first"


def test_listing_is_recursive_and_sorted_and_globs_stay_in_their_folder(store):
    bucket = store.bucket()
    for name in ("d/b.svs", "d/a.svs", "d/deep/c.svs", "d/a.txt"):
        bucket.write(store.url + name, b"1")
    assert [o.url.removeprefix(store.url) for o in bucket.list(store.url + "d/")] == ["d/a.svs", "d/a.txt", "d/b.svs", "d/deep/c.svs"]
    assert [o.url.removeprefix(store.url) for o in bucket.glob(store.url + "d/*.svs")] == ["d/a.svs", "d/b.svs"]
    assert len(bucket.glob(store.url + "**/*.svs")) == 3


def test_etags_of_listing_and_head_agree_and_change_with_the_content(store):
    bucket = store.bucket()
    bucket.write(store.url + "x", b"one")
    before = bucket.head(store.url + "x").etag
    assert bucket.list(store.url)[0].etag == before
    bucket.write(store.url + "x", b"other")
    assert bucket.head(store.url + "x").etag != before


def test_files_travel_both_ways(store, tmp_path):
    bucket = store.bucket()
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    bucket.upload(tmp_path / "a", store.url + "up")
    bucket.download(store.url + "up", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"abc" * 1000


def test_a_large_file_goes_through_fsspec_in_parts(tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(64 * 2**20)
    bucket = storage.Bucket(common.Storage(options={"transport": "fsspec"}))
    tracemalloc.start()
    bucket.upload(tmp_path / "large", f"file://{tmp_path}/objects/large")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "objects" / "large").stat().st_size == 64 * 2**20
    assert peak < 16 * 2**20


def test_a_deleted_object_is_gone_and_deleting_twice_is_no_error(store):
    bucket = store.bucket()
    bucket.write(store.url + "x", b"1")
    bucket.delete([store.url + "x"])
    bucket.delete([store.url + "x"])
    assert not bucket.exists(store.url + "x")


def test_a_missing_object_is_not_found(store):
    with pytest.raises(storage.NotFound, match="does not exist: check the bucket and the path"):
        store.bucket().read(store.url + "nowhere")


def test_a_range_beyond_the_end_is_not_found_rather_than_short(store):
    bucket = store.bucket()
    bucket.write(store.url + "x", b"0123456789")
    with pytest.raises(errors.PathoError):
        bucket.read_ranges(store.url + "x", [100], [4])


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_a_wrong_bucket_is_an_invalid_configuration_that_names_it(kind, request):
    store = request.getfixturevalue(kind)
    url = f"{store.url[:5]}no-such-bucket/slides/"
    with pytest.raises(errors.InvalidConfiguration, match=r"bucket .*no-such-bucket/ does not exist"):
        store.bucket().check(url)


def test_a_secret_that_is_not_mounted_is_named(monkeypatch):
    monkeypatch.delenv("PATHO_STORAGE_SECRET_DIR", raising=False)
    bucket = storage.Bucket(common.Storage(secret_name="gcs-key"))
    with pytest.raises(errors.InvalidConfiguration, match=r"'gcs-key' is not mounted at \$PATHO_STORAGE_SECRET_DIR: create the secret"):
        bucket.check("gs://some-bucket/slides/")


def test_a_secret_without_its_key_is_named(s3, tmp_path):
    (tmp_path / "s3-secret" / "secret_access_key").unlink()
    with pytest.raises(errors.InvalidConfiguration, match="'s3-key' has no key secret_access_key, which s3:// needs"):
        s3.bucket().check(s3.url)


def test_a_server_that_is_not_there_is_told_within_seconds_and_may_be_retried():
    bucket = storage.Bucket(common.Storage(endpoint=f"http://127.0.0.1:{servers.free_port()}", anonymous=True))
    with pytest.raises(storage.Transient, match=r"cannot be reached: check storage\.endpoint"):
        bucket.check("s3://some-bucket/slides/")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nowhere://host/x", "scheme nowhere:// is not supported"),
        ("ftp://host/x", "scheme ftp:// is not supported .*'host'"),
        ("s3:///x", "the bucket is missing"),
        ("s3://bucket/slides/../../other/x", "leads nowhere in a bucket"),
        ("http://host/a/%2e%2e/%2e%2e/etc/passwd", "leads nowhere in a bucket"),
    ],
)
def test_an_address_that_cannot_be_is_refused(url, sentence):
    with pytest.raises(errors.InvalidConfiguration, match=sentence):
        storage.Bucket().read(url)


def test_a_path_that_cannot_be_written_is_said_at_once():
    with pytest.raises(storage.AccessDenied, match="check the path and its permissions"):
        storage.Bucket().write("/proc/no-such-folder/x", b"1")


@pytest.mark.parametrize("transport", ["obstore", "fsspec"])
@pytest.mark.parametrize("fault", [503, 429, "short", "reset"])
def test_a_hiccup_is_retried_and_nothing_is_lost(web, fault, transport):
    (web.folder / "x").write_bytes(b"0123456789")
    web.faults.append(fault)
    bucket = storage.Bucket(common.Storage(options={"transport": transport}))
    assert bytes(bucket.read_ranges(web.url + "x", [2], [6])[0]) == b"234567"
    assert web.requests["GET", "x"] == 2


@pytest.mark.parametrize("fault", [503, 429])
def test_a_filesystem_that_tells_how_long_to_wait_is_left_alone_so_long(web, fault):
    """By the server's clock. obstore 0.12 does not show the header: it waits by its own backoff."""
    (web.folder / "x").write_bytes(b"0123456789")
    web.faults.append(fault)
    web.retry_after = 1
    bucket = storage.Bucket(common.Storage(options={"transport": "fsspec"}))
    assert bytes(bucket.read_ranges(web.url + "x", [2], [6])[0]) == b"234567"
    assert web.times[1] - web.times[0] >= 1


def test_a_lasting_fault_ends_as_transient_and_is_counted(web, monkeypatch):
    monkeypatch.setattr(storage, "TRIES", 1)
    (web.folder / "x").write_bytes(b"0123456789")
    web.faults.extend(["short"] * 40)
    bucket = storage.Bucket()
    with pytest.raises(storage.Transient):
        bucket.read_ranges(web.url + "x", [2], [6])
    assert bucket.requests == {("http", "failed"): 1}


def test_denied_access_names_the_secret_and_is_not_retried(web):
    (web.folder / "x").write_bytes(b"1")
    web.faults.append(403)
    with pytest.raises(storage.AccessDenied, match=r"was denied \(403\): check the keys of storage.secretName"):
        storage.Bucket().read(web.url + "x")
    assert sum(web.requests.values()) == 1


def test_renewed_credentials_are_taken_from_the_mounted_secret(web, tmp_path):
    (web.folder / "bucket").mkdir()
    (web.folder / "bucket" / "x").write_bytes(b"1")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "secret_access_key").write_text("s")
    (secret / "access_key_id").write_text("first")
    bucket = storage.Bucket(common.Storage(endpoint=web.url, secret_name="key"), str(secret))
    web.access_key = "first"
    assert bucket.read("s3://bucket/x") == b"1"
    web.access_key = "second"
    with pytest.raises(storage.AccessDenied):
        bucket.read("s3://bucket/x")
    (secret / "access_key_id").write_text("second")
    assert bucket.read("s3://bucket/x") == b"1"


def test_a_refused_request_is_a_wrong_setting_only_before_the_bucket_has_ever_answered(web, monkeypatch):
    monkeypatch.setattr(storage, "TRIES", 1)
    (web.folder / "x").write_bytes(b"1")
    bucket = storage.Bucket()
    web.faults.append(400)
    with pytest.raises(errors.InvalidConfiguration, match=r"refused the request \(400\): check storage\.region"):
        bucket.read(web.url + "x")
    assert bucket.read(web.url + "x") == b"1"
    web.faults.append(400)
    with pytest.raises(storage.Transient):
        bucket.read(web.url + "x")


def test_a_process_keeps_to_its_rate_of_requests():
    steady = pace.Pace(10)
    assert [round(steady.wait_seconds(1, now), 3) for now in (5.0, 5.0, 5.25, 9.0)] == [0, 0.1, 0, 0]
    assert [round(steady.wait_seconds(16, now), 3) for now in (9.1, 9.1)] == [0, 1.6]
    assert [pace.Pace(0).wait_seconds(99, 1.0) for _ in range(3)] == [0, 0, 0]


def test_the_rate_is_an_option_of_the_storage(web):
    (web.folder / "x").write_bytes(b"1")
    bucket = storage.Bucket(common.Storage(options={"requests_per_second": "20"}))
    started = time.monotonic()
    for _ in range(5):
        bucket.read(web.url + "x")
    assert time.monotonic() - started >= 4 / 20
    with pytest.raises(errors.InvalidConfiguration, match=r"storage\.options\.requests_per_second 'fast': give the number"):
        storage.Bucket(common.Storage(options={"requests_per_second": "fast"}))


def test_touching_ranges_are_one_request(web):
    (web.folder / "x").write_bytes(bytes(range(200)))
    bucket = storage.Bucket()
    bucket.read_ranges(web.url + "x", [0, 10, 20, 100], [10, 10, 10, 5])
    assert web.requests["GET", "x"] == 2
    assert bucket.requests["http", "ok"] == 2
    assert bucket.received["http"] == 35


def test_options_may_be_written_as_fsspec_or_obstore_name_them(s3):
    s3.bucket().write(s3.url + "x", b"1")
    fsspec_words = {"key": "test-key", "secret": "test-secret", "client_kwargs": {"endpoint_url": s3.storage.endpoint}}
    obstore_words = {"access_key_id": "test-key", "secret_access_key": "test-secret", "endpoint": s3.storage.endpoint}
    assert storage.from_options(fsspec_words).read(s3.url + "x") == b"1"
    assert storage.from_options(obstore_words).read(s3.url + "x") == b"1"


def test_another_transport_reads_the_same_from_the_same_server(web):
    (web.folder / "a b").write_bytes(bytes(range(200)))
    plain, other = storage.Bucket(), storage.Bucket(common.Storage(options={"transport": "fsspec"}))
    assert other.read(web.url + "a b") == plain.read(web.url + "a b")
    assert other.head(web.url + "a b") == plain.head(web.url + "a b")
    with pytest.raises(storage.NotFound):
        other.read(web.url + "nothing")


def test_an_unknown_option_is_refused_by_name(s3):
    bucket = storage.Bucket(common.Storage(endpoint=s3.storage.endpoint, anonymous=True, options={"colour": "blue"}))
    with pytest.raises(errors.InvalidConfiguration, match=r"colour.*check storage\.options"):
        bucket.read(s3.url + "x")
