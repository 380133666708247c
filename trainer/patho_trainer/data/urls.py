"""Addresses of objects: gs:// s3:// az:// http(s):// file://, a path of this machine, or any scheme of fsspec's. Pure string work."""

import dataclasses
import os
import re
import urllib.parse

from patho_trainer import errors

CLOUDS = {"gs": "gs", "gcs": "gs", "s3": "s3", "s3a": "s3", "az": "az", "abfs": "az", "abfss": "az"}
WEB = ("http", "https")
WILDCARDS = re.compile(r"[*?\[]")


@dataclasses.dataclass(frozen=True)
class Address:
    """`scheme` is gs, s3, az, http, https, file or one of fsspec's; `root` the bucket (or host); `path` has no leading slash."""

    scheme: str
    root: str
    path: str

    @property
    def base(self) -> str:
        """The url of the root, with a slash at the end."""
        return "/" if self.scheme == "file" else f"{self.scheme}://{self.root}/"

    def url_of(self, path: str) -> str:
        """The url of another object under the same root."""
        return self.base + path


def parse(url: str) -> Address:
    """Take a url apart; schemes that are not known here are left to fsspec. Raises InvalidConfiguration where the bucket is missing, or
    the path climbs."""
    scheme, found, rest = url.partition("://")
    if not found or scheme == "file":
        return Address("file", "", os.path.abspath(rest if found else url).lstrip("/"))
    root, _, path = rest.partition("/")
    if not root:
        raise errors.InvalidConfiguration(f"{url}: the bucket is missing: write {scheme}://BUCKET/PATH")
    if ".." in urllib.parse.unquote(path).split("/"):
        raise errors.InvalidConfiguration(f"{url}: '..' leads nowhere in a bucket: write the path from its root")
    if scheme in WEB:
        return Address(scheme, root, urllib.parse.unquote(path))
    return Address(CLOUDS.get(scheme, scheme), root, path)


def canonical(url: str) -> str:
    """A url as listings spell it: s3a:// is s3://, file:///a is /a. Raises as `parse`."""
    address = parse(url)
    return address.url_of(address.path)


def join(url: str, *names: str) -> str:
    """`url/name/...`, with exactly one slash between."""
    return "/".join([url.rstrip("/"), *(n.strip("/") for n in names)])


def parent(url: str) -> str:
    """The folder of an object, with a slash at the end."""
    return url[: url.rindex("/") + 1] if "/" in url else "./"


def name(url: str) -> str:
    """The last part of a url: the file's name."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def resolve(url: str, folder: str) -> str:
    """`url` itself where it is absolute, else relative to `folder` (which ends in a slash): manifests may name slides by path."""
    return url if "://" in url or url.startswith("/") else folder + url


def is_local(url: str) -> bool:
    """Whether a url names something on the disk of whoever reads it: file:// or a path."""
    return url.partition("://")[0] == "file" or "://" not in url


def is_glob(url: str) -> bool:
    """Whether a url has a wildcard."""
    return bool(WILDCARDS.search(url))


def glob_folder(pattern: str) -> str:
    """The longest folder without a wildcard: what has to be listed."""
    fixed = pattern[: re.search(WILDCARDS, pattern).start()]  # type: ignore[union-attr]  # is_glob was asked
    return fixed[: fixed.rindex("/") + 1] if "/" in fixed else "./"


def glob_regex(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay inside a folder, `**/` crosses folders, `[ab]` is a set: as in a shell."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    return re.compile("".join(parts.get(p, p.replace("[!", "[^") if p.startswith("[") else re.escape(p)) for p in pieces))
