"""Bodies of answers: bytes, or parts of files, sent block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 18


@dataclass(frozen=True)
class FilePart:
    """Bytes ``start`` to ``stop`` of a file, as a body that is never held in memory whole."""

    file: Path
    start: int
    stop: int


def length_of(body: bytes | FilePart) -> int:
    """Bytes of a body."""
    return len(body) if isinstance(body, bytes) else body.stop - body.start


def chunks(source: BinaryIO) -> Iterator[bytes]:
    """The chunks of a request's body in HTTP's chunked coding."""
    while size := int(source.readline().split(b";")[0], 16):
        yield source.read(size)
        source.readline()
    source.readline()


def blocks(body: bytes | FilePart, length: int) -> Iterator[bytes]:
    """The first ``length`` bytes of a body."""
    if isinstance(body, bytes):
        for start in range(0, length, _BLOCK):
            yield body[start : min(start + _BLOCK, length)]
        return
    with body.file.open("rb") as file:
        file.seek(body.start)
        while length > 0:
            block = file.read(min(_BLOCK, length))
            if not block:
                raise AssertionError(f"{body.file} is shorter than it was")
            length -= len(block)
            yield block
