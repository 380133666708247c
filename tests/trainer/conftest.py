"""Servers and buckets that trainer tests share."""

import os
import pathlib
from collections.abc import Iterator

import pytest

from patho_api import common
from tests.trainer import servers

FILESYSTEMS = {"s3fs": "s3", "gcsfs": "gcs", "adlfs": "az"}  # of fsspec's, and the bucket that they read
NO_AZURE = "Azurite is not installed (`make test` does it where npm is)"
NO_GCS = "fake-gcs-server is not built (`make test` builds it where Go 1.25 is; or set PATHOSCALE_TOOLS to its folder)"


@pytest.fixture(autouse=True)
def _own_credentials_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may depend on the credentials of whoever runs it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server."""
    with servers.s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, tmp_path: pathlib.Path) -> servers.Store:
    """An empty S3 bucket with its secret."""
    return servers.s3_bucket(s3_endpoint, tmp_path / "s3-secret")


@pytest.fixture(scope="session")
def gcs_endpoint() -> Iterator[str]:
    """A real Google-compatible server; tests that need it are reported as not run where it is not built."""
    binary = servers.gcs_binary()
    if binary is None:
        pytest.skip(NO_GCS)
    with servers.gcs_server(binary) as endpoint:
        yield endpoint


@pytest.fixture
def gcs(gcs_endpoint: str) -> servers.Store:
    """An empty bucket on a Google-compatible server."""
    return servers.gcs_bucket(gcs_endpoint)


@pytest.fixture(scope="session")
def azure_endpoint() -> Iterator[str]:
    """A real Azure-compatible server; tests that need it are reported as not run where it is not installed."""
    program = servers.azure_program()
    if program is None:
        pytest.skip(NO_AZURE)
    with servers.azure_server(program) as endpoint:
        yield endpoint


@pytest.fixture
def az(azure_endpoint: str, tmp_path: pathlib.Path) -> servers.Store:
    """An empty container on an Azure-compatible server, with its secret."""
    return servers.azure_bucket(azure_endpoint, tmp_path / "az-secret")


@pytest.fixture
def web(tmp_path: pathlib.Path) -> Iterator[servers.WebServer]:
    """A web server with ranges over an empty folder."""
    folder = tmp_path / "web"
    folder.mkdir()
    with servers.WebServer(folder) as server:
        yield server


@pytest.fixture(params=os.environ.get("PATHOSCALE_STORES", "local s3 gcs az memory").split())
def store(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> servers.Store:
    """An empty place for objects: a folder of this machine, a bucket of each cloud, a filesystem of fsspec's.

    The clouds through obstore or, where their packages are (`test_transports.py`), through gcsfs, s3fs and adlfs.
    """
    if request.param == "memory":
        return servers.Store(f"memory://{tmp_path.name}/", common.Storage())
    if request.param == "local":
        (tmp_path / "objects").mkdir()
        return servers.Store(f"{tmp_path}/objects/", common.Storage())
    found: servers.Store = request.getfixturevalue(FILESYSTEMS.get(request.param, request.param))
    return servers.by_fsspec(found) if request.param in FILESYSTEMS else found
