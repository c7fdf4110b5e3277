"""Seekable files over ranged requests: position, seeking and the end of the file, once for all servers.

A subclass says how to get bytes: blocks of a recording (`hdf5.ranged`), an object on S3, a file of a Hub's repository.
Retries and what may be buffered belong to the subclass.
"""

from __future__ import annotations

import io
from abc import abstractmethod

_PIECE_BYTES = 1 << 24
"""Bytes that `RangeFile.readall` reads at a time."""


class RangeFile(io.RawIOBase):
    """A read-only file of ``size`` bytes; subclasses implement `fill`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self._at = 0

    @abstractmethod
    def fill(self, start: int, target: memoryview) -> int:
        """Copy bytes from ``start`` on into ``target`` (never empty, never beyond the end).

        Returns how many were copied, at least 1; fewer than ``len(target)`` where one request gives less.
        """

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; see `io.IOBase.seek`."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as one `fill` goes; 0 at the end of the file."""
        target = memoryview(buffer).cast("B")[: max(0, self.size - self._at)]
        done = self.fill(self._at, target) if target else 0
        self._at += done
        return done

    def readall(self) -> bytes:
        """Read to the end, a few requests in all; `io.RawIOBase` would do so in pieces of 8 kB, each a request.

        No more memory is taken than is read: the size is what a server says.
        """
        return b"".join(iter(lambda: self.read(_PIECE_BYTES), b""))
