"""Who may write into a folder of checkpoints: the newest writer of the newest attempt, and nobody else.

Each time a gang forms, its first process claims the folder with a conditional write (`writers/000002-000005.json`: attempt 2, the
fifth writer of the folder). Every save looks whether a newer claim exists. So a process that was cut off (a partitioned node, a
paused machine, a second `patho run` of the same manifest) learns at its next save that it was replaced, and ends.
"""

import dataclasses
import json
import re
import uuid

from patho_trainer import errors
from patho_trainer.data import storage, urls

CLAIM = re.compile(r"(\d{6})-(\d{6})\.json$")


class Superseded(errors.PathoError):
    """A newer process writes to the same folder: this one must not, and has nothing left to do."""

    exit_code = 1
    reason = "Superseded"


@dataclasses.dataclass(frozen=True, order=True)
class Claim:
    """The right to write, ordered: the later attempt wins, then the later writer."""

    attempt: int
    writer: int

    @property
    def name(self) -> str:
        return f"{self.attempt:06d}-{self.writer:06d}"


def claim(root: str, attempt: int, bucket: storage.Bucket) -> Claim:
    """Claim the folder `root` for a gang that has just formed. Raises Superseded when a later attempt has claimed it."""
    me = json.dumps({"claimed": str(uuid.uuid4())}).encode()
    while True:
        found = _claims(root, bucket)
        newest = max(found, default=Claim(0, 0))
        if newest.attempt > attempt:
            raise _superseded(root, newest)
        mine = Claim(attempt, max((c.writer for c in found), default=0) + 1)
        if _put(_url(root, mine), me, bucket):
            bucket.delete(_url(root, c) for c in found if c < newest)
            return mine


def check(root: str, mine: Claim, bucket: storage.Bucket) -> None:
    """Raises Superseded when somebody newer has claimed the folder."""
    newest = max(_claims(root, bucket), default=mine)
    if newest > mine:
        raise _superseded(root, newest)


def _put(url: str, me: bytes, bucket: storage.Bucket) -> bool:
    """Whether the object is ours: a write that was retried after a lost answer finds itself."""
    try:
        bucket.write(url, me, if_absent=True)
    except storage.AlreadyExists:
        return bucket.read(url) == me
    return True


def _claims(root: str, bucket: storage.Bucket) -> list[Claim]:
    matches = (CLAIM.search(o.url) for o in bucket.list(urls.join(root, "writers", "")))
    return [Claim(int(m[1]), int(m[2])) for m in matches if m]


def _url(root: str, one: Claim) -> str:
    return urls.join(root, "writers", f"{one.name}.json")


def _superseded(root: str, by: Claim) -> Superseded:
    return Superseded(f"{root} belongs to a newer process (attempt {by.attempt}, writer {by.writer}): this one stops and leaves it alone")
