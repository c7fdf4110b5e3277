"""The bytes of one element of a MATLAB file (version 5 to 7.2), inflated as they are asked for."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

MAX_BYTES = 1 << 31  # of one variable; MATLAB writes no larger one into these versions ("MAT-File Versions")
_PIECE = 1 << 20


class Unreadable(Exception):
    """The bytes are no MATLAB file, or not all of one."""


class Unexpected(Exception):
    """A sound file that holds something else: what was found, and what was expected."""


class Stream:
    """The next ``size`` bytes of a file, inflated if they are compressed; only a piece of them is held."""

    def __init__(self, file: BinaryIO, size: int, order: str, *, compressed: bool = False) -> None:
        self.order = order
        self.at = 0  # bytes given so far
        self._file = file
        self._left = size
        self._inflater = zlib.decompressobj() if compressed else None
        self._piece = memoryview(b"")

    def pieces(self, n_bytes: int) -> Iterator[memoryview]:
        """The next bytes; all of them must be taken."""
        if n_bytes < 0:
            raise Unreadable("an array that is longer than it says")
        if self.at + n_bytes > MAX_BYTES:
            raise Unexpected(f"a variable of {self.at + n_bytes:,} bytes", f"at most {MAX_BYTES:,}")
        while n_bytes:
            if not self._piece:
                self._piece = memoryview(self._next_piece())
            part, self._piece = self._piece[:n_bytes], self._piece[n_bytes:]
            self.at += len(part)
            n_bytes -= len(part)
            yield part

    def _next_piece(self) -> bytes:
        while True:
            source = self._inflater.unconsumed_tail if self._inflater is not None else b""
            if not source:
                source = self._file.read(min(_PIECE, self._left))
                self._left -= len(source)
            try:
                piece = source if self._inflater is None else self._inflater.decompress(source, _PIECE)
            except zlib.error as error:
                raise Unreadable(f"compressed data that are damaged ({error})") from error
            if piece:
                return piece
            if not source:
                raise Unreadable(f"a variable that is cut off after {self.at:,} bytes")

    def read(self, n_bytes: int) -> bytearray:
        """The next bytes; memory is taken as they come."""
        content = bytearray()
        for piece in self.pieces(n_bytes):
            content += piece
        return content

    def skip(self, n_bytes: int) -> None:
        """Pass over the next bytes."""
        for _ in self.pieces(n_bytes):
            pass

    def finish(self) -> None:
        """Raise `Unreadable` unless compressed data end here, with the right checksum."""
        if self._inflater is not None and not self._inflater.eof:
            source = self._inflater.unconsumed_tail + self._file.read(min(_PIECE, self._left))
            try:
                self._inflater.decompress(source, _PIECE)
            except zlib.error as error:
                raise Unreadable(f"compressed data that are damaged ({error})") from error
            if not self._inflater.eof:
                raise Unreadable("compressed data that do not end with their array")

    def tag(self) -> tuple[int, int]:
        """Type and size of a large element."""
        kind, size = struct.unpack(f"{self.order}II", self.read(8))
        return kind, size

    def element(self, kinds: Sequence[int], max_bytes: int) -> tuple[int, bytearray]:
        """Type and data of the next element, small (data in the tag) or large (padded to 8 bytes)."""
        start = self.read(8)
        kind, size = struct.unpack(f"{self.order}II", start)
        small, kind = divmod(kind, 1 << 16)
        if kind not in kinds or (small > 4 if small else size > max_bytes):
            raise Unreadable(f"an element of type {kind} and {small or size:,} bytes where none such belongs")
        if small:
            return kind, start[4 : 4 + small]
        content = self.read(size)
        self.skip(-size % 8)
        return kind, content
