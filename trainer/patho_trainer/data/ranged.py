"""An object in a bucket as a file: for parsers, which read little and here and there."""

import io

from patho_trainer.data import storage

BLOCK_BYTES = 64 * 1024  # an image directory with its neighbourhood; larger reads go through in one request


class RangedFile(io.RawIOBase):
    """Read-only and seekable; every missing stretch of blocks costs one request. Not thread-safe."""

    def __init__(self, bucket: storage.Bucket, url: str, size: int) -> None:
        """`size` in bytes, as `Bucket.head` tells it."""
        super().__init__()
        self._bucket, self._url, self._size = bucket, url, size
        self._at = 0
        self._blocks: dict[int, bytes] = {}

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; beyond the end is allowed and reads nothing."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` as far as the object goes; all that is missing comes in one request."""
        end = min(self._size, self._at + len(buffer))
        if end <= self._at:
            return 0
        first, last = self._at // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        self._load([block for block in range(first, last) if block not in self._blocks])
        data = b"".join(self._blocks[block] for block in range(first, last))
        start = self._at - first * BLOCK_BYTES
        count = end - self._at
        buffer[:count] = data[start : start + count]
        self._at = end
        return count

    def _load(self, blocks: list[int]) -> None:
        if not blocks:
            return
        start, stop = blocks[0] * BLOCK_BYTES, min(self._size, (blocks[-1] + 1) * BLOCK_BYTES)
        data = bytes(self._bucket.read_ranges(self._url, [start], [stop - start])[0])
        for block in range(blocks[0], blocks[-1] + 1):
            at = block * BLOCK_BYTES - start
            self._blocks[block] = data[at : at + BLOCK_BYTES]
