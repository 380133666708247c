"""Opens obstore's store of a bucket with the credentials that the run was given; they are never logged nor part of a message."""

import datetime
import hashlib
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import obstore
from obstore import store as obstores

from patho_api import common, names
from patho_trainer import errors
from patho_trainer.data import emulator, filesystems, urls

OBSTORES = ("gs", "s3", "az", "http", "https", "file")
# options, and variables of the environment, that only obstore obeys, not the native core
OBSTORE_ALONE = re.compile("(aws_|google_|azure_)?(proxy_url|proxy_ca_certificate|allow_invalid_certificates)", re.IGNORECASE)
TRANSPORT, RATE = "transport", "requests_per_second"  # keys of storage.options that are ours, not a store's

# key of the secret (a file of that name) -> obstore's option, by scheme
SECRET_KEYS = {
    "gs": {"key.json": "service_account"},
    "s3": {"access_key_id": "access_key_id", "secret_access_key": "secret_access_key", "session_token": "token"},
    "az": {"account_name": "account_name", "account_key": "account_key", "sas_token": "sas_key"},
}
NEEDED_KEYS = {"gs": ("key.json",), "s3": ("access_key_id", "secret_access_key"), "az": ("account_name",)}
ENDPOINT_OPTION = {"gs": "base_url", "s3": "endpoint", "az": "endpoint"}
RETRIES = {
    "max_retries": 4,
    "backoff": {"init_backoff": datetime.timedelta(milliseconds=200), "max_backoff": datetime.timedelta(seconds=5), "base": 2},
    "retry_timeout": datetime.timedelta(seconds=60),
}
# A request may be long (a large object), but not silent: `read_timeout` is the longest wait for the next bytes.
TIMEOUTS = {"connect_timeout": "5s", "read_timeout": "20s", "timeout": "15m"}


def secret_options(scheme: str, storage: common.Storage, secret_dir: str | None) -> dict[str, str]:
    """Options out of the mounted secret. Raises InvalidConfiguration where the secret or one of its keys is missing."""
    folder = secret_dir or os.environ.get(names.ENV_SECRET_DIR, "")
    if scheme not in SECRET_KEYS or not (folder or storage.secret_name):
        return {}
    where = f"storage.secretName {storage.secret_name!r}" if storage.secret_name else f"secret folder {folder}"
    if not os.path.isdir(folder):
        raise errors.InvalidConfiguration(
            f"{where} is not mounted at {folder or '$' + names.ENV_SECRET_DIR}: create the secret in the run's namespace, "
            f"or point {names.ENV_SECRET_DIR} to a folder with its files"
        )
    missing = [key for key in NEEDED_KEYS[scheme] if not os.path.isfile(os.path.join(folder, key))]
    if missing:
        raise errors.InvalidConfiguration(f"{where} has no key {', '.join(missing)}, which {scheme}:// needs: add it to the secret")
    if scheme == "gs":
        return {"service_account": os.path.join(folder, "key.json")}
    found = {option: _text(os.path.join(folder, key)) for key, option in SECRET_KEYS[scheme].items()}
    return {option: value for option, value in found.items() if value}


def secret_state(scheme: str, storage: common.Storage, secret_dir: str | None) -> bytes:
    """A hash of the mounted secret's content: another one after Kubernetes has renewed it. Raises as `secret_options`."""
    found = secret_options(scheme, storage, secret_dir)
    content = [f"{option}={_text(value) or value}" for option, value in sorted(found.items())]
    return hashlib.blake2b("\n".join(content).encode()).digest()


def _text(path: str) -> str:
    if not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def options(address: urls.Address, storage: common.Storage, secret_dir: str | None, extra: Mapping[str, str]) -> dict[str, Any]:
    """All of obstore's options for a cloud bucket."""
    config: dict[str, Any] = _theirs(storage, extra)
    if storage.endpoint:
        config[ENDPOINT_OPTION[address.scheme]] = storage.endpoint.rstrip("/")
    if address.scheme == "s3" and (storage.region or not os.environ.get("AWS_REGION")):
        config.setdefault("region", storage.region or "us-east-1")
    if storage.anonymous:
        return config | {"skip_signature": True}
    return config | secret_options(address.scheme, storage, secret_dir)


def _theirs(storage: common.Storage, extra: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in {**storage.options, **extra}.items() if name not in (TRANSPORT, RATE)}


def requests_per_second(storage: common.Storage) -> float:
    """How many requests a process may send; 0 for any number. Raises InvalidConfiguration for what is no number."""
    text = storage.options.get(RATE, "0")
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < float("inf"):
        raise errors.InvalidConfiguration(f"storage.options.{RATE} {text!r}: give the number of requests a second that a process may send")
    return rate


def core_arguments(
    address: urls.Address, storage: common.Storage, secret_dir: str | None, extra: Mapping[str, str]
) -> tuple[str, str, dict[str, str], bool] | None:
    """Of the native core's fetcher of a bucket that obstore serves, with the same options. None where it does not reach it: this
    machine's disk, fsspec's filesystems, behind a proxy, and where certificates are not looked at."""
    if address.scheme not in OBSTORES or address.scheme == "file" or storage.options.get(TRANSPORT) == "fsspec":
        return None
    config = {} if address.scheme in urls.WEB else options(address, storage, secret_dir, extra)
    if _is_proxied(address, storage) or any(map(OBSTORE_ALONE.fullmatch, (*config, *os.environ))):
        return None
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in config.items()}
    return address.scheme, address.root, texts, _is_clear(address, storage)


def _is_clear(address: urls.Address, storage: common.Storage) -> bool:
    """Whether requests may go without TLS."""
    return address.scheme == "http" or storage.endpoint.startswith("http://")


def _is_proxied(address: urls.Address, storage: common.Storage) -> bool:
    """Whether the environment names a proxy for where requests go."""
    host = urllib.parse.urlsplit(storage.endpoint).hostname or (address.root if address.scheme in urls.WEB else "")
    return bool(urllib.request.getproxies().keys() & {"http", "https", "all"}) and not (host and urllib.request.proxy_bypass(host))


def open_store(address: urls.Address, storage: common.Storage, secret_dir: str | None, extra: Mapping[str, str]) -> Any:
    """The store of one bucket, host, or this machine's disk. Makes no request.

    Option `transport: fsspec` takes fsspec's filesystem (gcsfs, s3fs, adlfs) where obstore has a store of its own.
    """
    if address.scheme not in OBSTORES or storage.options.get(TRANSPORT) == "fsspec":
        secret = {} if storage.anonymous else secret_options(address.scheme, storage, secret_dir)
        return filesystems.FsspecStore(address, filesystems.arguments(address.scheme, storage, secret, _theirs(storage, extra)))
    if address.scheme == "file":
        return obstores.LocalStore("/")
    clear = _is_clear(address, storage)
    client = {**TIMEOUTS, "allow_http": clear}
    if address.scheme in urls.WEB:
        return obstores.HTTPStore(address.base, client_options=client, retry_config=RETRIES)
    kind = {"gs": obstores.GCSStore, "s3": obstores.S3Store, "az": obstores.AzureStore}[address.scheme]
    config = options(address, storage, secret_dir, extra)
    try:
        store = kind(address.root, config=config, client_options=client, retry_config=RETRIES)
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise errors.InvalidConfiguration(
            f"{address.base} cannot be set up ({str(error).splitlines()[0]}): check storage.options and the secret's keys"
        ) from error
    emulated = address.scheme == "gs" and storage.endpoint and (storage.anonymous or clear)
    return emulator.EmulatedStore(store, storage.endpoint.rstrip("/"), address.root) if emulated else store


# fsspec's names (s3fs, gcsfs, adlfs) -> obstore's
FSSPEC_NAMES = {"key": "access_key_id", "secret": "secret_access_key", "account_name": "account_name", "account_key": "account_key"}
ENDPOINT_NAMES = ("endpoint_url", "endpoint", "base_url", "aws_endpoint", "aws_endpoint_url")
ANONYMOUS_NAMES = ("anon", "anonymous", "skip_signature")


def split_options(given: Mapping[str, Any]) -> tuple[common.Storage, None, dict[str, str]]:
    """Arguments of `storage.Bucket` for a mapping in fsspec's or obstore's words."""
    flat = {**given, **dict(given.get("client_kwargs", {}))}
    flat.pop("client_kwargs", None)
    endpoint = next((str(flat.pop(name)) for name in ENDPOINT_NAMES if flat.get(name)), "")
    anonymous = any(flat.get(name) for name in ANONYMOUS_NAMES)
    region = str(flat.pop("region", None) or flat.pop("region_name", None) or "")
    token = flat.pop("token", None)
    if token == "anon":
        anonymous = True
    elif isinstance(token, str):
        flat["application_credentials" if token.endswith(".json") else "token"] = token
    options = {
        FSSPEC_NAMES.get(name, name): str(value) for name, value in flat.items() if value is not None and name not in ANONYMOUS_NAMES
    }
    return common.Storage(endpoint=endpoint, region=region, anonymous=anonymous), None, options


def folders(store: Any, path: str) -> set[str]:
    """Paths of the folders in a folder. The emulated store and fsspec's list whole trees only."""
    if hasattr(store, "list_with_delimiter"):
        return set(store.list_with_delimiter(path or None)["common_prefixes"])
    head = f"{path}/" if path else ""
    inside = (meta["path"].removeprefix(head) for page in store.list(path or None) for meta in page)
    return {head + name.partition("/")[0] for name in inside if "/" in name}


def etag(meta: Mapping[str, Any]) -> str:
    """One spelling: listings and heads of the same server differ in quotes."""
    return str(meta["e_tag"] or meta.get("last_modified") or "").removeprefix("W/").strip('"')
