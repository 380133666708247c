"""Container images made from this machine's own interpreter, without registry, daemon or network.

`pathoscale()` holds Python at the paths it has here, the shared libraries it needs, the packages of the operator and this
project's sources: what the Dockerfile's target `operator` holds. `pause()` is the process that keeps a pod's namespaces.
"""

import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any

import certifi
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[2]
IMAGE = "pathoscale.test/pathoscale:dev"
PAUSE = "pathoscale.test/pause:dev"
PACKAGES = "/app/packages"  # the operator's; a trainer's pods get all of them from a volume at SITE_PACKAGES
SITE_PACKAGES = "/site-packages"
SOURCES = ("operator", "trainer")
SOURCE_PATH = ":".join(f"/app/{root}" for root in SOURCES)
BUSYBOX = pathlib.Path("/bin/busybox")
USER = 65532
# what wheels expect of the system (the part of manylinux' list that has no display), and name resolution of older C libraries
WHEEL_LIBRARIES = ("libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libutil.so.1")
RESOLVER_LIBRARIES = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
NOT_NEEDED = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages", "dist-packages"}
TEXTS = {
    "/etc/passwd": f"root:x:0:0:root:/root:/bin/sh\nnonroot:x:{USER}:{USER}:nonroot:/tmp:/bin/sh\n",
    "/etc/group": f"root:x:0:\nnonroot:x:{USER}:\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
}


def pathoscale(path: pathlib.Path) -> None:
    """Write the project's image, IMAGE, as a docker archive."""
    files = dict(_interpreter()) | dict(_packages("pathoscale", {"operator"})) | dict(_sources())
    libraries = str(pathlib.Path(sys.base_prefix) / "lib")
    _archive(path, IMAGE, files, ["python"], {"PYTHONPATH": f"{SOURCE_PATH}:{PACKAGES}", "LD_LIBRARY_PATH": libraries})


def pause(path: pathlib.Path) -> None:
    """Write the pause image, PAUSE: a shell that waits and ends on SIGTERM."""
    loop = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done"
    _archive(path, PAUSE, {"/bin/busybox": BUSYBOX}, ["/bin/busybox", "sh", "-c", loop], {})


def _interpreter() -> Iterator[tuple[str, pathlib.Path | bytes]]:
    """Python at the paths it has here, `python` on the PATH, and every shared library that its modules load."""
    binary = pathlib.Path(sys.executable).resolve()
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    modules = [f for f in _tree(library) if not f.parent.name.startswith("config-")]
    yield from ((str(f), f) for f in modules)
    yield str(binary), binary
    objects = [binary, *(f for f in modules if ".so" in f.suffixes)]
    yield from ((name, pathlib.Path(name)) for name in _loaded(objects) | _system_libraries())
    yield "/bin/busybox", BUSYBOX
    yield "/etc/ssl/certs/ca-certificates.crt", pathlib.Path(certifi.where())  # obstore refuses to start without any
    yield from ((name, text.encode()) for name, text in TEXTS.items())


def _packages(distribution: str, extras: set[str]) -> Iterator[tuple[str, pathlib.Path]]:
    """Files of all distributions that `distribution[extras]` asks for; of itself, installed in place, the metadata."""
    for name in sorted(closure(distribution, extras)):
        for file in importlib.metadata.distribution(name).files or []:
            source = pathlib.Path(str(file.locate()))
            if ".." not in file.parts and file.suffix != ".pth" and source.is_file():
                yield f"{PACKAGES}/{file}", source


def closure(distribution: str, extras: set[str]) -> set[str]:
    """Canonical names of all distributions that `distribution[extras]` needs, itself among them."""
    found: set[str] = set()
    ahead = [(distribution, frozenset(extras))]
    while ahead:
        name, wanted = ahead.pop()
        found.add(name)
        for text in importlib.metadata.distribution(name).requires or []:
            need = Requirement(text)
            environments = [{"extra": extra} for extra in ("", *wanted)]
            if canonicalize_name(need.name) not in found and (not need.marker or any(need.marker.evaluate(e) for e in environments)):
                ahead.append((canonicalize_name(need.name), frozenset(need.extras)))
    return found


def _sources() -> Iterator[tuple[str, pathlib.Path]]:
    for root in SOURCES:
        yield from ((f"/app/{file.relative_to(ROOT)}", file) for file in _tree(ROOT / root) if file.suffix != ".pyc")


def _tree(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f not in NOT_NEEDED]
        yield from (pathlib.Path(parent, f) for f in files)


def _loaded(objects: list[pathlib.Path]) -> set[str]:
    """Paths of the shared libraries that these objects load."""
    output = subprocess.run(["ldd", *map(str, objects)], capture_output=True, text=True).stdout  # 1 when one of them is static
    return set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", output, re.MULTILINE))


def _system_libraries() -> set[str]:
    cached = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    wanted = {*WHEEL_LIBRARIES, *RESOLVER_LIBRARIES}
    return {where for name, where in re.findall(r"^\s+(\S+) \(libc6,x86-64[^)]*\) => (\S+)$", cached, re.MULTILINE) if name in wanted}


def _archive(
    path: pathlib.Path, name: str, files: dict[str, pathlib.Path | bytes], entrypoint: list[str], variables: dict[str, str]
) -> None:
    """A docker archive of one layer, the same bytes for the same files."""
    layer = path.with_suffix(".layer")
    _layer(layer, files)
    with open(layer, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    environment = [f"{k}={v}" for k, v in {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **variables}.items()]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": environment, "User": str(USER), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    with tarfile.open(path, "w") as tar:
        tar.add(layer, f"{digest}/layer.tar")
        _add_json(tar, "config.json", config)
        _add_json(tar, "manifest.json", [{"Config": "config.json", "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}])
    layer.unlink()


def _layer(path: pathlib.Path, files: dict[str, pathlib.Path | bytes]) -> None:
    links = {"/bin/sh": "busybox", "/bin/sleep": "busybox"}
    if str(interpreter := pathlib.Path(sys.executable).resolve()) in files:
        links |= {"/usr/local/bin/python": str(interpreter)}
    with tarfile.open(path, "w") as tar:
        for folder in sorted(_parents([*files, *links]) | {"/tmp", "/proc", "/sys", "/dev", "/run"}):
            _add(tar, folder, type=tarfile.DIRTYPE, mode=0o1777 if folder == "/tmp" else 0o755)
        for name, content in sorted(files.items()):
            if isinstance(content, bytes):
                _add(tar, name, content)
            else:  # times are kept, or Python would compile every module anew in each pod
                facts = content.stat()
                _add(tar, name, content.read_bytes(), mode=0o755 if facts.st_mode & 0o111 else 0o644, mtime=int(facts.st_mtime))
        for name, target in links.items():
            _add(tar, name, type=tarfile.SYMTYPE, linkname=target)


def _parents(names: Iterable[str]) -> set[str]:
    return {str(parent) for name in names for parent in pathlib.PurePosixPath(name).parents} - {"/"}


def _add(tar: tarfile.TarFile, name: str, data: bytes = b"", **attributes: Any) -> None:
    info = tarfile.TarInfo(name.lstrip("/"))
    info.size = len(data)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    tar.addfile(info, io.BytesIO(data))


def _add_json(tar: tarfile.TarFile, name: str, content: Any) -> None:
    _add(tar, name, json.dumps(content, sort_keys=True).encode())
