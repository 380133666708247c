"""The stream in a process of its own: no Python of the loader ever holds the interpreter's lock while the training thread wants it.

Batches come through memory that both processes share (memfd: no file, nothing in /dev/shm, gone with the processes), everything else
through a socket. `python -m patho_trainer.data.child FD` is the other end; it ends when the socket does.
"""

import collections
import contextlib
import dataclasses
import logging
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from patho_api import common, pretrain
from patho_trainer import errors
from patho_trainer.data import buffers, index, sampler, storage, stream
from patho_trainer.data import catalog as catalogs
from patho_trainer.data import stats as counters

SENT = 2  # batches that wait for the parent
HELD = 3  # batches that the parent may use where they are: this one, the one before, one ahead
log = logging.getLogger(__name__)
COUNTED = ("patches", "buffered", "bytes", "requests", "seconds", "replaced", "redrawn", "quarantined")


@dataclasses.dataclass(frozen=True)
class Order:
    """What the child is to read: arguments of `stream.batches`, `memory` the file descriptor of `count` batches."""

    index: str
    version: str
    spec: str
    storage: str
    secret_dir: str | None
    options: dict[str, str]
    arguments: dict[str, Any]
    memory: int
    count: int
    shape: tuple[int, ...]


def batches(
    catalog: catalogs.Catalog,
    spec: pretrain.PretrainSpec,
    *,
    bucket: storage.Bucket,
    stats: counters.Stats | None = None,
    prefetch: int = stream.PREFETCH_BATCHES,
    **arguments: Any,
) -> "Batches":
    """As `stream.batches`, for a catalog that was loaded from an index; one core more is busy than `threads`. Linux only."""
    slots = sampler.rank_slots(
        spec.training.batch_size, sampler.loss_groups(spec), arguments.get("rank", 0), arguments.get("world_size", 1)
    )
    shape = (len(slots), spec.patches.size_px, spec.patches.size_px, 3)
    ahead = stream.batches_ahead(prefetch, shape)
    count = ahead + SENT + HELD + 3  # being filled, sent, in use, and a few that change hands
    memory = os.memfd_create("patho-batches")
    os.ftruncate(memory, count * int(np.prod(shape)))
    settings, secret_dir, options = bucket.settings
    order = Order(
        catalog.url,
        catalog.version,
        spec.model_dump_json(),
        settings.model_dump_json(),
        secret_dir,
        options,
        {"prefetch": ahead, **arguments},
        memory,
        count,
        shape,
    )
    return Batches(order, slots, stats or counters.Stats())


class Requests(Sequence[sampler.Request]):
    """The requests of a batch, taken apart when somebody looks at them: that is work for the training thread's interpreter."""

    def __init__(self, packed: bytes) -> None:
        """What `_pack` made."""
        self._packed = packed
        self._found: tuple[sampler.Request, ...] | None = None

    def _all(self) -> tuple[sampler.Request, ...]:
        if self._found is None:
            self._found = tuple(sampler.Request(*values) for values in pickle.loads(self._packed))
        return self._found

    def __getitem__(self, i: Any) -> Any:
        """As of a tuple."""
        return self._all()[i]

    def __len__(self) -> int:
        """Patches of the batch."""
        return len(self._all())

    def __repr__(self) -> str:
        """As of a tuple."""
        return repr(self._all())


def _pack(requests: Sequence[sampler.Request]) -> bytes:
    return pickle.dumps([tuple(request) for request in requests], protocol=5)


class Mark(Protocol):
    """A point in the work of a device; torch.cuda.Event is one."""

    def query(self) -> bool:
        """Whether the work before it is done."""
        ...

    def synchronize(self) -> None:
        """Wait until it is."""
        ...


class Batches(Iterator[stream.Batch]):
    """What `batches` returns. For one consumer; close it in the end.

    No thread, no copy: a batch is used where the process has put it, and its place goes back when nothing uses it any more: neither here
    nor, where the memory is page-locked, in copies to a GPU that are still to be made. These belong on the stream that was current when
    the batch was taken. Nobody waits for them, unless the process has no place left.
    """

    def __init__(self, order: Order, slots: tuple[int, ...], stats: counters.Stats) -> None:
        """Use `batches`."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "patho_trainer.data.child", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno(), order.memory])
        theirs.close()
        self._pipe = connection.Connection(ours.detach())
        self._pipe.send(order)
        self._shared = _arrays(order)
        os.close(order.memory)
        self._locked = torch.cuda.is_available() and _lock_pages(self._shared)
        self._slots, self._stats = slots, stats
        self._lent: set[object] = set()  # one for each time that a place was lent: who gives one back may come after it is lent again
        # places that the process does not know of yet, each with the work that must be done before
        self._free: collections.deque[tuple[int, Mark | None]] = collections.deque()
        self._closed = False

    def __next__(self) -> stream.Batch:
        """The next step's batch; waits until it is ready. Raises as `stream.Batches`, and PathoError where the process has died."""
        if self._closed:
            raise StopIteration
        try:
            with self._stats.timed("wait"):
                message = self._received()
        except BaseException:  # of a signal handler
            self.close()
            raise
        if isinstance(message, tuple):
            return self._batch(*message)
        self.close()
        raise message or StopIteration

    def close(self) -> None:
        """End the process. May be called again; batches that were taken stay good."""
        if self._closed:
            return
        self._closed = True
        self._process.kill()  # it keeps nothing that could be lost
        self._process.wait()
        self._pipe.close()
        if self._locked:
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaHostUnregister(self._shared[0].ctypes.data)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def _received(self) -> Any:
        """What the process sends; PathoError where it has died."""
        try:
            self._return_places()
            return self._pipe.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            return errors.PathoError(f"the process that reads slides has died (exit code {code}): give the pod more memory")

    def _return_places(self) -> None:
        """Those whose work is done; at least one where the process waits for it. What goes from lent to free meanwhile is counted in both,
        never in neither."""
        if self._free and len(self._lent) + len(self._free) >= SENT + HELD and (mark := self._free[0][1]):
            mark.synchronize()
        while self._free and ((mark := self._free[0][1]) is None or mark.query()):
            self._pipe.send(self._free.popleft()[0])

    def _batch(self, step: int, place: int, packed: bytes, counted: dict[str, Any]) -> stream.Batch:
        wait = self._stats.seconds["wait"]
        for name, value in counted.items():
            setattr(self._stats, name, value)
        self._stats.seconds["wait"] = wait
        return stream.Batch(step, torch.from_numpy(self._pixels(place)), self._slots, Requests(packed))

    def _pixels(self, place: int) -> NDArray[np.uint8]:
        """A batch where it lies; a copy for a consumer that keeps so many that the process would run out of places."""
        if len(self._lent) >= HELD:
            self._free.append((place, None))
            return self._shared[place].copy()
        pixels, loan = self._shared[place].view(), object()
        self._lent.add(loan)
        weakref.finalize(pixels, self._give_back, loan, place, self._marking()).atexit = False
        return pixels

    def _marking(self) -> Callable[[], Mark | None]:
        """What marks the end of the work that was given to the GPU, by the time it is called, on the stream that is current now."""
        return torch.cuda.current_stream().record_event if self._locked else lambda: None

    def _give_back(self, loan: object, place: int, mark: Callable[[], Mark | None]) -> None:
        """In whichever thread lets go of a batch."""
        self._free.append((place, mark()))
        self._lent.discard(loan)  # last: see _return_places


def _arrays(order: Order) -> list[NDArray[np.uint8]]:
    """The shared memory as `count` batches."""
    memory = mmap.mmap(order.memory, order.count * int(np.prod(order.shape)))
    whole = np.frombuffer(memory, dtype=np.uint8).reshape(order.count, *order.shape)
    return list(whole)


def _lock_pages(arrays: Sequence[NDArray[np.uint8]]) -> bool:
    """For copies to a GPU beside other work; without it they are slower. Whether it could be done."""
    size = sum(array.nbytes for array in arrays)
    failed = int(torch.cuda.cudart().cudaHostRegister(arrays[0].ctypes.data, size, 0))  # type: ignore[no-untyped-call]
    if failed:
        log.warning("the memory of batches cannot be page-locked (CUDA error %d): copies to the GPU are slower", failed)
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device="cuda")  # CUDA tells a failure once more at the next launch: let it be this one
    return not failed


def _main(pipe: connection.Connection) -> None:
    """The other end: reads until it is killed or the parent is gone."""
    for each in (signal.SIGINT, signal.SIGTERM):  # a terminal and a launcher signal the whole group; the parent decides
        signal.signal(each, signal.SIG_IGN)
    order = pipe.recv()
    free = threading.Semaphore(SENT + HELD)
    held: dict[int, Any] = {}
    threading.Thread(target=_listen, args=(pipe, free, held), daemon=True).start()
    try:
        for message in _messages(order, held):
            free.acquire()
            pipe.send(message)
        pipe.send(None)
    except BrokenPipeError:
        return
    except BaseException as error:
        pipe.send(error if isinstance(error, errors.PathoError) else errors.PathoError(f"{type(error).__name__}: {error}"))
    threading.Event().wait()  # for the parent to take the last batches


def _messages(order: Order, held: dict[int, Any]) -> Iterator[tuple[int, int, bytes, dict[str, Any]]]:
    bucket = storage.Bucket(common.Storage.model_validate_json(order.storage), order.secret_dir, order.options)
    catalog = index.load(order.index, bucket=bucket, version=order.version)
    spec, stats, arrays = pretrain.PretrainSpec.model_validate_json(order.spec), counters.Stats(), _arrays(order)
    places = {array.ctypes.data: place for place, array in enumerate(arrays)}
    pool = buffers.Buffers(order.shape, memory=arrays)
    with stream.batches(catalog, spec, bucket=bucket, stats=stats, memory=pool, **order.arguments) as found:
        for batch in found:
            place = places[batch.images.data_ptr()]
            held[place] = batch.images  # until the parent gives it back
            yield batch.step, place, _pack(batch.requests), {name: getattr(stats, name) for name in COUNTED}


def _listen(pipe: connection.Connection, free: threading.Semaphore, held: dict[int, Any]) -> None:
    while True:
        try:
            held.pop(pipe.recv())
        except (EOFError, OSError):
            os._exit(0)  # the parent is gone
        free.release()


if __name__ == "__main__":
    _main(connection.Connection(int(sys.argv[1])))
