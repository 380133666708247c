"""Many runs at once, and one large gang, on fake nodes: against the bare floor, which is a script that makes the objects itself.

`make bench` prints the numbers; those in RESULTS.md come from it. PATHOSCALE_BENCH_RESOURCES and PATHOSCALE_BENCH_ROUNDS change its size.
"""

import asyncio
import copy
import dataclasses
import os
import pathlib
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from patho_api import names, resource
from patho_operator import manifests, observed
from tests.bench import scale
from tests.bench.scale import Bench, Manifest
from tests.cluster import runs, tools

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

RESOURCES = [int(n) for n in os.environ.get("PATHOSCALE_BENCH_RESOURCES", "100,1000").split(",")]
ROUNDS = int(os.environ.get("PATHOSCALE_BENCH_ROUNDS", "3"))
GANG = int(os.environ.get("PATHOSCALE_BENCH_GANG", "1000"))
OPERATOR = "pathoscale"  # its service account


@dataclasses.dataclass(frozen=True)
class Round:
    """What one round took; the rest is per resource."""

    seconds: float  # from the first create until all pods run
    writes: float  # by all components, without our operator's events
    cpu_ms: float  # of the control plane and the operator
    by_writer: Counter[tuple[str, str, str]]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Capacity for the largest round, and no more than a gang needs where that is the largest."""
    if tools.missing() and (reason := tools.reason_against_building()):
        pytest.skip(f"NOT RUN: {reason}")
    with tempfile.TemporaryDirectory(prefix="patho-", ignore_cleanup_errors=True) as folder:
        made = scale.start(pathlib.Path(folder), nodes=-(-max(*RESOURCES, GANG) // scale.PODS_A_NODE))
        yield made
        made.plane.processes.stop_all()


@pytest.mark.parametrize("number", RESOURCES)
def test_single_node_runs_until_all_pods_run(bench: Bench, number: int):
    """Rounds of the operator and of the floor, interleaved."""
    ours, floor = [], []
    for i in range(ROUNDS):
        ours.append(asyncio.run(measure(bench, [run(f"r{i}-{n}") for n in range(number)], number)))
        rss, latency = bench.rss_mib("operator"), reconcile_ms(bench)
        asyncio.run(clean(bench))
        floor.append(asyncio.run(measure(bench, [m for n in range(number) for m in bare(f"f{i}-{n}")], number)))
        asyncio.run(clean(bench))
        print(f"\n{number} resources, round {i + 1}: ours {tell(ours[-1])}; floor {tell(floor[-1])}; operator RSS {rss:.0f} MiB; {latency}")
    ratios = [a.seconds / b.seconds for a, b in zip(ours, floor, strict=True)]
    for what, key in (("writes", "writes"), ("CPU ms", "cpu_ms")):
        mine, bare_ones = ([getattr(r, key) for r in rounds] for rounds in (ours, floor))
        print(f"{number}: {what} a resource {spread(mine)} (floor {spread(bare_ones)})")
    print(f"{number}: time over the floor {spread(ratios)}")
    for whose, last in (("ours", ours[-1]), ("floor", floor[-1])):
        for writer, count in last.by_writer.most_common():
            print(f"   {whose:6} {count / number:6.2f}  {' '.join(writer)}")
    assert statistics.median(r.writes for r in ours) < statistics.median(r.writes for r in floor)
    own = sum(n for (user, _, what), n in ours[-1].by_writer.items() if user == OPERATOR and what != "events")
    assert own / number < 3.1  # a Job and two statuses; the Job controller's own number grows on a busy machine


def test_a_large_gang_loses_a_pod_and_is_replaced_as_a_whole(bench: Bench):
    """One pod in place; then all pods by a new attempt, with room for exactly one gang."""
    print(f"\ngang of {GANG}: {asyncio.run(gang(bench))}")
    asyncio.run(clean(bench))


async def gang(bench: Bench) -> str:
    """Seconds of each act."""
    body = run("gang", nodes=GANG)
    async with bench.client() as client:
        begin = time.monotonic()
        await client.create([body])
        first = await client.running(GANG)
        started = time.monotonic() - begin
        victim = (await client.call("GET", f"{scale.PODS}?limit=1"))["items"][0]["metadata"]
        begin = time.monotonic()
        failed = {"status": {"phase": "Failed"}}
        await client.call("PATCH", f"{scale.PODS}/{victim['name']}/status", failed, "application/merge-patch+json")
        second = await client.running(1, without=first)
        replaced = time.monotonic() - begin
        begin = time.monotonic()
        change = {"spec": {"training": {"learningRate": 0.001}}}
        await client.call("PATCH", f"{scale.PATHS['PathoPretrain']}/gang", change, "application/merge-patch+json")
        await client.running(GANG, without=second)
        again = time.monotonic() - begin
    return f"all run after {started:.1f} s, a failed pod replaced after {replaced:.1f} s, all of the next attempt after {again:.1f} s"


async def measure(bench: Bench, objects: list[Manifest], pods: int) -> Round:
    """One round."""
    everybody = (*scale.PLANE, "operator")
    async with bench.client() as client:
        offset, cpu, begin = await bench.settle(), bench.cpu_seconds(*everybody), time.monotonic()
        watching = asyncio.create_task(client.running(pods))
        await client.create(objects)
        await watching
        seconds = time.monotonic() - begin
        await bench.settle()
        used = bench.cpu_seconds(*everybody) - cpu
        writes = bench.writes(offset)
    counted = sum(n for (user, _, what), n in writes.items() if (user, what) != (OPERATOR, "events"))
    return Round(seconds, counted / pods, 1000 * used / pods, writes)


async def clean(bench: Bench) -> None:
    async with bench.client() as client:
        await client.clean()
        await bench.settle()


def run(name: str, nodes: int = 1) -> Manifest:
    """A PathoPretrain with the example's size of specification."""
    body = runs.pretrain(name, nodes=nodes) | {"metadata": {"name": name, "namespace": scale.NAMESPACE}}
    body["spec"]["training"] = {"batchSize": max(256, nodes)}
    return body


def bare(name: str) -> list[Manifest]:
    """What a script would make for the same pod: Service, ConfigMap and Indexed Job, under labels that the operator does not watch."""
    body = run(name)
    found = resource.parse(body)
    job = manifests.job(found, attempt=1, image="trainer:1", before=observed.Before(), reason="", wanted_hash="")
    made = [manifests.service(found), job, {"apiVersion": "v1", "kind": "ConfigMap", "data": {"spec": str(body["spec"])}}]
    return [_relabelled(m, name) for m in made]


def _relabelled(manifest: Manifest, name: str) -> Manifest:
    changed = copy.deepcopy(manifest)
    changed["metadata"] = {"name": name, "labels": {"run": name}}
    if changed["kind"] == "Service":
        changed["spec"]["selector"] = {"run": name}
    if changed["kind"] == "Job":
        changed["spec"]["template"]["metadata"]["labels"] = {"run": name}
    return changed


def reconcile_ms(bench: Bench) -> str:
    """Mean time of a turn since the operator started."""
    found = {key: float(value) for key, value in re.findall(r"^(\S+) (\S+)$", bench.operator.metrics(), re.MULTILINE)}
    name = names.OPERATOR_RECONCILE_SECONDS
    return f"turn {1000 * found[name + '_sum'] / found[name + '_count']:.1f} ms on average of {found[name + '_count']:.0f}"


def tell(found: Round) -> str:
    return f"{found.seconds:.1f} s, {found.writes:.2f} writes, {found.cpu_ms:.0f} ms CPU"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
