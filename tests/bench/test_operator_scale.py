"""Many runs at once, and one large gang, on fake nodes: against Kubeflow Trainer with JobSet, and against the bare floor, which is a
script that makes the objects itself. All on one control plane, in turns, each with nobody else's operator beside it, and all with pods of
the same specification; Trainer also with the pod of its shipped runtime, which carries next to nothing.

`make bench` prints the numbers; those in RESULTS.md come from it. PATHOSCALE_BENCH_RESOURCES, _ROUNDS and _GANG change its size;
PATHOSCALE_BENCH_RIVALS=0 leaves Trainer and JobSet out.
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
from collections.abc import Callable, Iterator

import pytest

from patho_api import names, resource
from patho_operator import manifests, observed
from tests.bench import gang, rival, scale
from tests.bench.scale import Bench, Manifest
from tests.cluster import release, runs, tools

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

RESOURCES = [int(n) for n in os.environ.get("PATHOSCALE_BENCH_RESOURCES", "100,1000").split(",")]
ROUNDS = int(os.environ.get("PATHOSCALE_BENCH_ROUNDS", "3"))
GANG = int(os.environ.get("PATHOSCALE_BENCH_GANG", "1000"))
RIVALS = os.environ.get("PATHOSCALE_BENCH_RIVALS", "1") == "1"
OPERATOR = "pathoscale"  # its service account


@dataclasses.dataclass(frozen=True)
class Round:
    """What one round took; the rest is per resource."""

    seconds: float  # from the first create until all pods run
    written_seconds: float  # from the first create until the last write: all that was to be told is told
    writes: float  # by all components, without our operator's events
    cpu_ms: dict[str, float]  # by process: the control plane and the operators
    by_writer: Counter[tuple[str, str, str]]

    @property
    def all_cpu_ms(self) -> float:
        """Of all processes."""
        return sum(self.cpu_ms.values())


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Capacity for the largest round, and no more than a gang needs where that is the largest."""
    if (tools.missing() or (RIVALS and tools.missing(rivals=True))) and (reason := tools.reason_against_building()):
        pytest.skip(f"NOT RUN: {reason}")
    if RIVALS:
        tools.build(rivals=True)
    with tempfile.TemporaryDirectory(prefix="patho-", ignore_cleanup_errors=True) as folder:
        made = scale.start(pathlib.Path(folder), nodes=-(-max(*RESOURCES, GANG) // scale.PODS_A_NODE), rival_pod=_pod() if RIVALS else None)
        yield made
        made.plane.processes.stop_all()


@pytest.mark.parametrize("number", RESOURCES)
def test_single_node_runs_until_all_pods_run(bench: Bench, number: int):
    """Rounds of all, interleaved. A small one goes ahead of each: what has just started imports and compiles at its first request."""
    found: dict[str, list[Round]] = {who: [] for who in makers()}
    for i in range(ROUNDS):
        for who, make in in_turn(makers(), i):
            bench.only(party(who))
            one_round(bench, make(f"w{i}"), 3)
            found[who].append(one_round(bench, make(f"r{i}", number), number))
            print(f"\n{number} resources, round {i + 1}, {who}: {tell(found[who][-1])}", flush=True)
            if who == "ours":
                print(f"operator: RSS {bench.rss_mib('operator'):.0f} MiB, {reconcile_ms(bench)}", flush=True)
    for who, rounds in found.items():
        ratios = [mine.seconds / floor.seconds for mine, floor in zip(rounds, found["floor"], strict=True)]
        cpu = [mine.all_cpu_ms / floor.all_cpu_ms for mine, floor in zip(rounds, found["floor"], strict=True)]
        print(f"{number}, {who}: {spread([r.seconds for r in rounds])} s, {spread([r.writes for r in rounds])} writes,", end=" ")
        print(f"{spread([r.all_cpu_ms for r in rounds])} ms CPU; over the floor: time {spread(ratios)}, CPU {spread(cpu)}")
        for writer, count in rounds[-1].by_writer.most_common():
            print(f"   {who:6} {count / number:6.2f}  {' '.join(writer)}")
    ours = found["ours"]
    assert statistics.median(r.writes for r in ours) < statistics.median(r.writes for r in found["floor"])
    own = [written_by_us(r) / number for r in ours]
    assert (
        2.0 <= min(own) < 2.5
    )  # a Job and one status, or two where the machine is slow; the Job controller's own number grows on a busy machine


def makers() -> dict[str, Callable[..., list[Manifest]]]:
    """What each makes of a prefix and a number."""
    found: dict[str, Callable[..., list[Manifest]]] = {
        "ours": lambda prefix, number=3: [run(f"o{prefix}-{n}") for n in range(number)],
        "floor": lambda prefix, number=3: [m for n in range(number) for m in bare(f"f{prefix}-{n}")],
    }
    if RIVALS:
        found["rival"] = lambda prefix, number=3: trainjobs(f"t{prefix}", number, rival.SAME_PODS)
        found["rival as shipped"] = lambda prefix, number=3: trainjobs(f"s{prefix}", number, rival.SHIPPED)
    return found


def in_turn(found: dict[str, Callable[..., list[Manifest]]], number: int) -> list[tuple[str, Callable[..., list[Manifest]]]]:
    """The makers, another one first in each round."""
    shift = number % len(found)
    return [*found.items()][shift:] + [*found.items()][:shift]


def party(who: str) -> scale.Party:
    """Whose operators a maker needs."""
    return who if who in ("ours", "floor") else "rival"


def trainjobs(prefix: str, number: int, runtime: str) -> list[Manifest]:
    """TrainJobs of one pod each."""
    return [rival.trainjob(f"{prefix}-{n}", 1, scale.NAMESPACE, runtime) for n in range(number)]


def written_by_us(found: Round) -> int:
    return sum(n for (user, _, what), n in found.by_writer.items() if user == OPERATOR and what != "events")


def one_round(bench: Bench, objects: list[Manifest], pods: int) -> Round:
    measured = asyncio.run(measure(bench, objects, pods))
    asyncio.run(clean(bench))
    return measured


def test_a_large_gang_loses_a_pod_and_stalls(bench: Bench):
    """One pod is replaced in place; progress stands still, and all pods are replaced by a new attempt, with room for exactly one gang."""
    bench.only("floor")
    release.Operator(bench.plane.processes, bench.plane.cluster, settings={}).start()  # one that asks for progress, as it does by default
    print(f"\ngang of {GANG}, ours: {asyncio.run(gang.stalled(bench, run('gang', nodes=GANG, stallTimeoutSeconds=10), GANG))}")
    asyncio.run(clean(bench))


@pytest.mark.skipif(not RIVALS, reason="NOT RUN: PATHOSCALE_BENCH_RIVALS=0")
@pytest.mark.parametrize("runtime", [rival.SAME_PODS, rival.SHIPPED])
def test_the_same_gang_of_the_rival_restarts(bench: Bench, runtime: str):
    """There is no stall detection there: one pod is made to fail, and with its failure policy all are replaced."""
    bench.only("rival")
    found = asyncio.run(gang.failed(bench, rival.trainjob("gang", GANG, scale.NAMESPACE, runtime), GANG))
    print(f"\ngang of {GANG}, rival, {runtime}: {found}")
    asyncio.run(clean(bench))


async def measure(bench: Bench, objects: list[Manifest], pods: int) -> Round:
    """One round."""
    async with bench.client() as client:
        before = await bench.settle()
        cpu, begin = bench.cpu_seconds(), time.monotonic()
        watching = asyncio.create_task(client.running(pods))
        await client.create(objects)
        await watching
        seconds = time.monotonic() - begin
        after = await bench.settle()
        assert after.cpu.keys() == cpu.keys()  # nobody has ended
        used = {name: 1000 * (seconds - cpu[name]) / pods for name, seconds in after.cpu.items()}
        writes = bench.writes(before.audited)
    counted = sum(n for (user, _, what), n in writes.items() if (user, what) != (OPERATOR, "events"))
    return Round(seconds, after.written - begin, counted / pods, used, writes)


async def clean(bench: Bench) -> None:
    async with bench.client() as client:
        await client.clean(rivals=bool(bench.trainer))
        await bench.settle()


def run(name: str, nodes: int = 1, **policy: int) -> Manifest:
    """A PathoPretrain with the example's size of specification."""
    body = runs.pretrain(name, nodes=nodes, **policy) | {"metadata": {"name": name, "namespace": scale.NAMESPACE}}
    body["spec"]["training"] = {"batchSize": max(256, nodes)}
    return body


def _job(found: resource.Resource) -> Manifest:
    return manifests.job(found, attempt=1, image="trainer:1", before=observed.Before(), reason="", wanted_hash="")


def _pod() -> Manifest:
    """The specification of our pods, for the rival's."""
    found: Manifest = _job(resource.parse(run("rival")))["spec"]["template"]["spec"]
    return found


def bare(name: str) -> list[Manifest]:
    """What a script would make for the same pod: Service, ConfigMap and Indexed Job, under labels that the operator does not watch."""
    body = run(name)
    found = resource.parse(body)
    job = _job(found)
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
    parts = ", ".join(f"{name} {used:.1f}" for name, used in found.cpu_ms.items())
    times = f"{found.seconds:.1f} s, last write after {found.written_seconds:.1f} s"
    return f"{times}, {found.writes:.2f} writes, {found.all_cpu_ms:.0f} ms CPU ({parts})"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
