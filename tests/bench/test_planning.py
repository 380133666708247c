"""Planning alone: the cost of finding places and tiles of patches on slides not seen before, by the native core and by Python."""

import time

import pytest

from patho_trainer.data import columns, core, index, places, record, sampler, storage, urls
from tests.bench import rates
from tests.trainer.data import scale
from tests.trainer.data.values import make_spec

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

ROUNDS, SLIDES, BATCH, WINDOW = 7, 128, 32, 16
MIXES = {"0.25 um/px": [{"mpp": 0.25}], "four magnifications": [{"mpp": mpp} for mpp in (0.25, 0.5, 1.0, 2.0)]}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Slides of 20 x 20 mm; a batch is on as many of them as it has slots."""
    folder = tmp_path_factory.mktemp("index")
    scale.write_index(folder, SLIDES)
    return index.load(urls.join(str(folder)), bucket=storage.Bucket())


@pytest.mark.skipif(core.load() is None, reason="NOT RUN: the native core is not built: make native")
@pytest.mark.parametrize("mix", MIXES)
def test_planning_whole_windows_of_slides_that_were_not_seen_before(mix, catalog, monkeypatch):
    spec = make_spec(batch_size=BATCH, patches={"magnifications": MIXES[mix], "windowSteps": WINDOW})
    found = {"native": [], "Python": []}
    for number in range(ROUNDS):
        for name, module in (("native", core.load()), ("Python", None)):
            monkeypatch.setattr(record, "native", module)
            monkeypatch.setattr(places, "native", module)
            plan = sampler.Plan(catalog, spec, number)  # which knows no slide yet
            slots = range(BATCH)
            start = time.thread_time()
            columns.ahead(plan, plan.steps_left(0, slots), slots, None, 2**40)  # each from its next window on
            found[name].append(BATCH * WINDOW / (time.thread_time() - start))
    assert rates.told(f"{mix}: planning by the native core / by Python, patches per CPU-second", found["native"], found["Python"]) > 1.5
