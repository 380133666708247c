"""30,000 slides: a rank stays small."""

import json
import os
import subprocess
import sys

import pytest

from tests.trainer.data import scale


@pytest.mark.slow
def test_a_rank_stays_below_a_gibibyte_at_30_000_slides(tmp_path):
    scale.write_index(tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    child = subprocess.run([sys.executable, "-m", "tests.trainer.data.scale", str(tmp_path)], env=environment, stdout=-1, check=True)
    found = json.loads(child.stdout)
    print(found)
    assert found["peak_mib"] <= 1024
    assert found["catalog_mib"] <= 256
