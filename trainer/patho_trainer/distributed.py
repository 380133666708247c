"""The processes of a run: who am I, on which device, and the few things that all of them do together."""

import dataclasses
import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch import nn
from torch.nn import parallel

from patho_api import common
from patho_trainer import errors

T = TypeVar("T")
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=30)  # a process that hangs is noticed; the slowest save of a large model is not
GPU = "nvidia.com/gpu"


@dataclasses.dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int
    size: int
    local_rank: int
    node_rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Writes what must be written once."""
        return self.rank == 0

    @property
    def reports(self) -> bool:
        """Speaks for the run on port 9400 of pod 0: torchrun may give rank 0 to any pod, the operator asks pod 0."""
        return self.node_rank == 0 and self.local_rank == 0


def choose_device(compute: common.Compute, gpus_here: int) -> str:
    """`cuda` when every process of the pod gets a GPU of its own, else `cpu`. Raises InvalidConfiguration where GPUs were asked for
    and are not there."""
    if gpus_here >= compute.processes_per_node:
        return "cuda"
    requested = int(compute.resources.limits.get(GPU, "0"))
    if requested:
        raise errors.InvalidConfiguration(
            f"spec.compute asks for {requested} GPUs a pod and {compute.processes_per_node} processes, but torch sees {gpus_here} GPUs "
            f"here: check the driver and the image, or remove {GPU} from resources.limits to train on CPUs"
        )
    return "cpu"


def threads(compute: common.Compute, cpus_here: int) -> int:
    """CPU threads of a process: an equal share of the pod's limit, or of this machine. Fixed, because sums depend on it."""
    limit = compute.resources.limits.get("cpu", "")
    cpus = float(limit[:-1]) / 1000 if limit.endswith("m") else float(limit or cpus_here)
    return max(1, int(min(cpus, cpus_here) / compute.processes_per_node))


def be_deterministic() -> None:
    """Ask torch, cuBLAS and NCCL for algorithms whose sums have one order; before CUDA is first used."""
    os.environ |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring"}
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def join(device: str, node_rank: int, environ: Mapping[str, str] = os.environ) -> World:
    """Meet the other processes at the address that torchrun put into the environment."""
    local_rank = int(environ["LOCAL_RANK"])
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    return World(
        rank=dist.get_rank(),
        size=dist.get_world_size(),
        local_rank=local_rank,
        node_rank=node_rank,
        device=torch.device(device, local_rank) if device == "cuda" else torch.device("cpu"),
    )


def leave() -> None:
    """Say goodbye to the others."""
    dist.destroy_process_group()


def barrier() -> None:
    """Wait for everybody. By a CPU tensor, so that it never waits for a GPU's queue."""
    total([0.0])


def total(values: Sequence[float]) -> list[float]:
    """Sums of numbers over all processes, in double precision, the same everywhere."""
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return list(tensor.tolist())


def add_up(tensor: torch.Tensor) -> None:
    """Sum a tensor over all processes, in place, where it is."""
    dist.all_reduce(tensor)


def replicate(module: nn.Module, world: World) -> parallel.DistributedDataParallel:
    """The module with gradients that are averaged over the processes during the backward pass.

    `find_unused_parameters` keeps the buckets as they are made; else they are made anew after the first step, and sums over more than
    two processes would be rounded differently before and after a restart.
    """
    devices = [world.device] if world.device.type == "cuda" else None
    return parallel.DistributedDataParallel(module, device_ids=devices, find_unused_parameters=True)


def gather(value: T) -> list[T]:
    """The value of every process, in the order of ranks, everywhere."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def on_first(world: World, action: Callable[[], T]) -> T:
    """Rank 0 acts, everybody gets the result; a PathoError of rank 0 is raised everywhere."""
    outcome: list[Any] = [None, None]
    if world.is_first:
        try:
            outcome[0] = action()
        except errors.PathoError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result
