"""The clouds through fsspec's own filesystems: all tests of `store` again over gcsfs, s3fs and adlfs, against the same real servers.

Their packages have other pins than the environment, so that they run in a process of their own (tests/aside).
"""

import pathlib
import re
import subprocess
import sys

import pytest

from tests.aside import place
from tests.trainer import servers

ROOT = pathlib.Path(__file__).parents[3]
STORES = ("gcsfs", "s3fs", "adlfs")
FILES = ("test_storage.py", "test_stream.py", "test_copies.py")


@pytest.mark.slow
def test_every_test_of_a_store_holds_for_gcsfs_s3fs_and_adlfs():
    if not place.folder(place.OTHERS).exists():
        pytest.skip(f"gcsfs, s3fs and adlfs are not installed: {place.HINT}")
    stores = [s for s in STORES if s != "gcsfs" or servers.gcs_binary()]
    stores = [s for s in stores if s != "adlfs" or servers.azure_program()]
    environment = place.environment(place.OTHERS, *filter(None, sys.path)) | {
        "PATHOSCALE_STORES": " ".join(stores),
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # else the first call to an emulator waits a minute for an answer of Google's
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", " or ".join(stores)]
    files = [str(pathlib.Path(__file__).with_name(name)) for name in FILES]
    done = subprocess.run([*command, *files], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    print(done.stdout.splitlines()[-1])
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 12 * len(stores)
