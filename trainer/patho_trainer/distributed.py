"""The processes of a run: who am I, on which device, and the few things that all of them do together."""

import contextlib
import dataclasses
import datetime
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed import device_mesh, fsdp
from torch.distributed import tensor as dtensors
from torch.nn import parallel

from patho_api import common
from patho_trainer import errors

T = TypeVar("T")
SHARDED_FROM_PARAMETERS = 200_000_000  # of the backbone: S (22 M) and B (86 M) are copied, L (304 M), H and g are sharded
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=30)  # a process that hangs is noticed
SAVE_TIMEOUT = datetime.timedelta(hours=2)  # the slowest save of a large model
PATIENCE = datetime.timedelta(days=7)  # one process may index slides for hours after the others; the operator sees whether it still works
GPU = "nvidia.com/gpu"


@dataclasses.dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int
    size: int
    local_rank: int
    node_rank: int
    device: torch.device
    saving: dist.ProcessGroup | None = None
    """What saves beside training talk through; None: the default group."""
    patient: dist.ProcessGroup | None = None
    """For waits that may take hours, such as for a first index; None: the default group."""

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
        saving=_talk(SAVE_TIMEOUT),
        patient=_talk(PATIENCE),
    )


def _talk(timeout: datetime.timedelta) -> dist.ProcessGroup:
    """A group of all processes with connections of its own, on the CPU."""
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(group, dist.ProcessGroup)
    return group


def alone() -> World:
    """A world of this process only, on the first GPU where there is one. Nothing has to be joined or left."""
    return World(rank=0, size=1, local_rank=0, node_rank=0, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def meet(world: World) -> None:
    """Wait for everybody, where there is somebody else."""
    if world.size > 1:
        barrier(world.patient)


def leave() -> None:
    """Say goodbye to the others."""
    dist.destroy_process_group()


def barrier(group: dist.ProcessGroup | None = None) -> None:
    """Wait for everybody. By a CPU tensor, so that it never waits for a GPU's queue."""
    dist.all_reduce(torch.zeros(1), group=group)


def total(values: Sequence[float]) -> list[float]:
    """Sums of numbers over all processes, in double precision, the same everywhere."""
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return list(tensor.tolist())


def add_up(tensor: torch.Tensor) -> None:
    """Sum a tensor over all processes, in place, where it is."""
    dist.all_reduce(tensor)


def spread(student: nn.Module, teacher: nn.Module, world: World) -> nn.Module:
    """Make the networks ready for training by all processes; returns what the student's forward pass goes through.

    Small models are copied to every process and their gradients averaged (DDP). Of large ones each process holds a part of every
    parameter, of its gradient and of the optimizer's state (FSDP2): ViT-L, H and g would fill a GPU otherwise. The teacher is then
    sharded as the student is, so that its moving average needs no communication.
    """
    if sum(p.numel() for p in student.get_submodule("backbone").parameters()) < SHARDED_FROM_PARAMETERS:
        return replicate(student, world)
    for network in (student, teacher):
        shard(network, world)
    return student


def replicate(module: nn.Module, world: World) -> parallel.DistributedDataParallel:
    """The module with gradients that are averaged over the processes during the backward pass.

    `find_unused_parameters` keeps the buckets as they are made; else they are made anew after the first step, and sums over more than
    two processes would be rounded differently before and after a restart.
    """
    devices = [world.device] if world.device.type == "cuda" else None
    return parallel.DistributedDataParallel(module, device_ids=devices, find_unused_parameters=True)


def shard(network: nn.Module, world: World) -> None:
    """Share the parameters out, in place: every block and every head is put together only while it computes.

    Parameters stay float32 and are cast by autocast as with DDP, so that both compute the same.
    """
    mesh = device_mesh.init_device_mesh(world.device.type, (world.size,))
    heads = [child for name, child in network.named_children() if name != "backbone"]
    for module in (*network.get_submodule("backbone.blocks").children(), *heads, network):
        fsdp.fully_shard(module, mesh=mesh, reshard_after_forward=True)
    fsdp.register_fsdp_forward_method(network, "features")


@contextlib.contextmanager
def accumulation(student: nn.Module, *, last: bool) -> Iterator[None]:
    """Around the forward and backward pass of a micro-batch: gradients are added up over the processes in the last one only."""
    if isinstance(student, fsdp.FSDPModule):
        student.set_requires_gradient_sync(last)
        yield
        return
    assert isinstance(student, parallel.DistributedDataParallel)
    with contextlib.nullcontext() if last else student.no_sync():
        yield


def norms(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """2-norms (N,) of N tensors, sharded ones as a whole, which all processes must ask for. Nothing waits for the device."""
    found = torch.stack([torch.linalg.vector_norm(local(tensor)) for tensor in tensors])
    if isinstance(tensors[0], dtensors.DTensor):
        found.square_()
        dist.all_reduce(found)
        found.sqrt_()
    return found


def gather(value: T, group: dist.ProcessGroup | None = None) -> list[T]:
    """The value of every process, in the order of ranks, everywhere."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group)
    return values


def on_first(world: World, action: Callable[[], T], group: dist.ProcessGroup | None = None) -> T:
    """Rank 0 acts, everybody gets the result; what goes wrong in rank 0 is raised everywhere, as a PathoError."""
    outcome = [_outcome(action) if world.is_first else (None, None)]
    dist.broadcast_object_list(outcome, src=0, group=group, device=torch.device("cpu"))
    result: T = _results(outcome)[0]
    return result


def of_first(world: World, value: T) -> T:
    """Rank 0's value, everywhere."""
    return on_first(world, lambda: value) if world.size > 1 else value


def on_all(action: Callable[[], T], group: dist.ProcessGroup | None = None) -> list[T]:
    """Everybody acts and gets all results; the first error, by rank, is raised everywhere, as a PathoError."""
    return _results(gather(_outcome(action), group))


def _outcome(action: Callable[[], T]) -> tuple[T | None, errors.PathoError | None]:
    try:
        return action(), None
    except errors.PathoError as error:
        return None, error
    except Exception as error:  # else the others wait for this process until a time-out
        traceback.print_exc()
        return None, errors.PathoError(f"{type(error).__name__}: {error}")


def _results(outcomes: Sequence[tuple[Any, errors.PathoError | None]]) -> list[Any]:
    for _, error in outcomes:
        if error is not None:
            raise error
    return [result for result, _ in outcomes]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard of a tensor that is sharded, else the tensor itself; without a gradient's history."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, dtensors.DTensor) else tensor


def whole_on_first(tensor: torch.Tensor, world: World) -> torch.Tensor:
    """A tensor that may be sharded by rows, on rank 0 whole; the others get their shard. By way of the group of saves."""
    mine = local(tensor)
    if not isinstance(tensor, dtensors.DTensor):
        return mine
    parts: list[Any] | None = [None] * world.size if world.is_first else None
    dist.gather_object(mine, parts, group=world.saving)
    return torch.cat(parts) if parts else mine
