"""Reader ``eight_probe_mat``: MATLAB files with a struct ``spks`` per probe (figshare 7739750; docs/binning.md).

The reader comes first. Below it is a parser of columns of numbers in a struct
array of a MATLAB file (version 5 to 7.2; "MAT-File Level 5 File Format",
MathWorks) that validates every size. scipy reads whole structs, takes memory
for whatever dimensions a nested cell claims (15 GB for a file of 200 bytes) and
recurses in C until the process dies (10,000 nested cells, 1.5 kB). Here nothing
recurses, fields that are not requested are skipped, and memory is allocated
only for bytes that exist.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

from neuralpile_dagster.errors import DamagedRecording, EmptyRecording, OutOfMemory
from neuralpile_dagster.hdf5.opened import OpenFile
from neuralpile_dagster.recordings.model import Recording, SessionFacts, SpikeTrains, Unit
from neuralpile_dagster.recordings.nwb.table import MAX_ROWS

# ---- The reader: spks(1), spks(2), ... -> Recording

_VARIABLE = "spks"
_FIELDS = ("st", "clu")  # spike times in seconds, cluster ids from 1


def read_probes_mat(opened: OpenFile) -> Recording:
    """Read the spike trains of all probes of one file.

    Each probe has as many units as its largest cluster id; an id without
    spikes is a unit without spikes. A unit's id is its cluster id, its probe the
    number of the probe in the file, from 1. The files name no brain areas.

    Returns
    -------
    Recording
        `SpikeTrains` with bin rule ``"from_first_spike"``; within a unit the
        spikes are in the file's order.

    Raises
    ------
    DamagedRecording
        The file cannot be read, has no usable ``spks``, ids that are not whole
        numbers from 1, or times that are NaN or infinite.
    EmptyRecording
        There is no span of time between the first spike and the last.
    """
    name = opened.name
    probes = [_probe(name, number, probe) for number, probe in enumerate(_load(name, opened.local_path()), start=1)]
    sizes = [int(ids.max(initial=0)) for _, ids in probes]
    if sum(sizes) > MAX_ROWS:
        raise _wrong(name, f"cluster ids up to {max(sizes):,}", f"at most {MAX_ROWS:,} units")
    times = np.concatenate([times for times, _ in probes])
    if not len(times) or times.max() == times.min():
        raise EmptyRecording(
            f"{name} has nothing to bin",
            found=f"{len(times):,} spikes" + (f", all at {times[0]} s" if len(times) else ""),
            expected="spikes at different times",
        )
    offsets = np.cumsum([0, *sizes[:-1]])
    rows = np.concatenate([ids - 1 + offset for (_, ids), offset in zip(probes, offsets, strict=True)])
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum(np.bincount(rows, minlength=sum(sizes)))
    file = PurePosixPath(name).name
    units = tuple(
        Unit(unit_id=unit_id, file=file, probe=str(number))
        for number, size in enumerate(sizes, start=1)
        for unit_id in range(1, size + 1)
    )
    return Recording(SpikeTrains(times[order], ends.astype(np.int64), "from_first_spike"), units, SessionFacts())


def _load(name: str, path: Path) -> list[tuple[np.ndarray, ...]]:
    """Read the fields of ``spks``, probe after probe."""
    try:
        with path.open("rb") as file:
            return read_columns(file, _VARIABLE, _FIELDS)
    except _Unexpected as other:
        raise _wrong(name, *other.args) from other
    except MemoryError as error:
        raise OutOfMemory.in_reading(name, _VARIABLE) from error
    except (_Unreadable, OSError) as error:
        raise DamagedRecording(
            f"{name} cannot be read as a MATLAB file",
            found=str(error),
            remedy="fetch the file again; it is truncated, damaged or of another format",
        ) from error


def _probe(name: str, number: int, probe: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Spike times (float64, s) and cluster ids (int64) of one probe, in the file's order."""
    where = f"{_VARIABLE}({number})"
    times, ids = (values.astype(np.float64, copy=False) for values in probe)
    if len(times) != len(ids):
        raise _wrong(name, f"{len(times):,} times and {len(ids):,} cluster ids in {where}", "one id per spike time")
    if not np.isfinite(times).all():
        bad = np.flatnonzero(~np.isfinite(times))
        raise _wrong(name, f"{times[bad[0]]} as spike time {bad[0] + 1} of {where}", "finite times in seconds")
    whole = (ids >= 1) & (ids <= MAX_ROWS) & (ids == np.floor(ids))
    if not whole.all():
        bad = np.flatnonzero(~whole)
        raise _wrong(
            name, f"{ids[bad[0]]} as cluster id {bad[0] + 1} of {where}", f"whole numbers from 1 to {MAX_ROWS:,}"
        )
    return times, ids.astype(np.int64)


def _wrong(name: str, found: str, expected: str) -> DamagedRecording:
    return DamagedRecording(
        f"{name} is not a valid eight-probe recording",
        found=found,
        expected=expected,
        remedy="fetch the file again, or choose another reader",
    )


# ---- The parser: MATLAB files of version 5 to 7.2

MAX_ELEMENTS = 64  # of the struct array
MAX_BYTES = 1 << 31  # of one variable; MATLAB writes no larger one into these versions ("MAT-File Versions")
_PIECE = 1 << 20
_MAX_NAMES_BYTES = 1 << 14
_MAX_DIMENSIONS = 32

_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED, _UTF8 = 1, 5, 6, 14, 15, 16
_TEXTS, _INTEGERS = (_INT8, _UTF8), (_INT32, _UINT32)  # the second of each is what other writers than MATLAB use
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STRUCT, _OPAQUE = 2, 17
_NUMBERS = range(6, 16)  # classes double to uint64
_COMPLEX = 0x0800
_EMPTY = np.empty(0)


class _Unreadable(Exception):
    """The bytes are not a MATLAB file, or it is truncated."""


class _Unexpected(Exception):
    """A valid file with other contents: found, and expected."""


class _Header(NamedTuple):
    kind: int  # the array's class
    is_complex: bool
    shape: tuple[int, ...]
    name: str


def read_columns(file: BinaryIO, variable: str, fields: Sequence[str]) -> list[tuple[np.ndarray, ...]]:
    """Read some fields of each element of a struct array.

    Parameters
    ----------
    file : binary file, seekable, at its start
    variable : str
        The struct array's name; it has 1 to `MAX_ELEMENTS` elements.
    fields : sequence of str
        Names of fields that hold one column (or row) of real numbers.

    Returns
    -------
    list of tuple of numpy.ndarray, shape (n_values,)
        Per element the fields in the requested order, in the file's dtype. Read
        from no more than `MAX_BYTES` of the variable, and with no more values per
        field than the file has bytes (or than a small file's million): times
        and ids of real spikes do not compress below a byte each.

    Raises
    ------
    _Unreadable, _Unexpected
    """
    n_bytes = os.fstat(file.fileno()).st_size
    order = _byte_order(file.read(128))
    names: list[str] = []
    at = 128
    while at < n_bytes:
        file.seek(at)
        kind, size = _Stream(file, min(8, n_bytes - at), order).tag()
        at += 8 + size
        if kind not in (_MATRIX, _COMPRESSED) or at > n_bytes:
            raise _Unreadable(f"an element of type {kind} that ends at byte {at:,} of {n_bytes:,}")
        stream = _Stream(file, size, order, compressed=kind == _COMPRESSED)
        if kind == _COMPRESSED and stream.tag()[0] != _MATRIX:
            raise _Unreadable(f"a compressed element without an array, before byte {at:,}")
        header = _header(stream)
        if header.name == variable:
            columns = _struct_columns(stream, header, fields, max_values=max(1 << 20, n_bytes))
            stream.finish()
            return columns
        names = [*names, header.name][:20]
    raise _Unexpected(f"variables {', '.join(names) or 'none'}", f"a variable {variable}")


def _byte_order(start: bytes) -> str:
    order = {b"IM": "<", b"MI": ">"}.get(start[126:])
    if order is None:
        raise _Unreadable("no header of a MATLAB file of version 5 or later")
    (version,) = struct.unpack(f"{order}H", start[124:126])
    if version == 0x0200:
        raise _Unexpected("a MATLAB 7.3 file", "a MATLAB 5 to 7.2 file: save it again with `save -v7`")
    if version != 0x0100:
        raise _Unreadable(f"version {version:#06x} in the header")
    return order


def _header(stream: _Stream) -> _Header:
    """Read an array's header."""
    _, flags = stream.element([_UINT32], 8)
    if len(flags) != 8:
        raise _Unreadable("array flags that are cut off")
    (flag,) = struct.unpack_from(f"{stream.order}I", flags)
    shape = () if flag & 0xFF == _OPAQUE else tuple(_integers(stream))
    _, name = stream.element(_TEXTS, _MAX_NAMES_BYTES)
    return _Header(flag & 0xFF, bool(flag & _COMPLEX), shape, name.decode("latin-1"))


def _integers(stream: _Stream) -> list[int]:
    _, content = stream.element(_INTEGERS, 4 * _MAX_DIMENSIONS)
    values: list[int] = np.frombuffer(content, f"{stream.order}i4", len(content) // 4).tolist()
    if not values or min(values) < 0:
        raise _Unreadable(f"{values[:8]} as dimensions or lengths")
    return values


def _struct_columns(
    stream: _Stream, header: _Header, fields: Sequence[str], max_values: int
) -> list[tuple[np.ndarray, ...]]:
    names = _field_names(stream) if header.kind == _STRUCT else []
    if not set(fields) <= set(names) or not 0 < prod(header.shape) <= MAX_ELEMENTS:
        shown = ", ".join(names[:20]) or "none"
        raise _Unexpected(
            f"{header.name} of shape {header.shape} with fields {shown}",
            f"a struct array of 1 to {MAX_ELEMENTS} elements with fields {', '.join(fields)}",
        )
    columns = []
    left = dict.fromkeys(fields, max_values)
    for number in range(1, prod(header.shape) + 1):
        element: dict[str, np.ndarray] = {}
        for field in names:
            kind, size = stream.tag()
            end = stream.at + size
            if kind != _MATRIX:
                raise _Unreadable(f"an element of type {kind} as {header.name}({number}).{field}")
            if field in left:
                element[field] = _column(stream, f"{header.name}({number}).{field}", left[field]) if size else _EMPTY
                left[field] -= len(element[field])
            stream.skip(end - stream.at)
        columns.append(tuple(element[field] for field in fields))
    return columns


def _field_names(stream: _Stream) -> list[str]:
    """Names of the fields: texts of one length each, ended by a zero byte."""
    length = _integers(stream)[0]
    _, content = stream.element(_TEXTS, _MAX_NAMES_BYTES)
    if not length:
        return []
    texts = [content[start : start + length] for start in range(0, len(content), length)]
    return [text.split(b"\0")[0].decode("latin-1") for text in texts]


def _column(stream: _Stream, where: str, max_values: int) -> np.ndarray:
    """Read one column of real numbers; its size is checked first."""
    header = _header(stream)
    n_values = prod(header.shape)
    if header.kind not in _NUMBERS or header.is_complex or n_values not in (0, max(header.shape)):
        raise _Unexpected(f"{where} of class {header.kind}, shape {header.shape}", "one column of numbers")
    if n_values > max_values:
        raise _Unexpected(f"{n_values:,} values in {where}", f"at most {max_values:,} in a file of this size")
    kind, content = stream.element(list(_DTYPES), n_values * 8)
    dtype = np.dtype(stream.order + _DTYPES[kind])
    if len(content) != n_values * dtype.itemsize:
        raise _Unreadable(f"{len(content):,} bytes in {where}, where {n_values:,} values of {dtype} belong")
    return np.frombuffer(content, dtype)


class _Stream:
    """_Stream of the next ``size`` bytes of a file, inflated if compressed; holds only a piece of them."""

    def __init__(self, file: BinaryIO, size: int, order: str, *, compressed: bool = False) -> None:
        self.order = order
        self.at = 0  # bytes given so far
        self._file = file
        self._left = size
        self._inflater = zlib.decompressobj() if compressed else None
        self._piece = memoryview(b"")

    def pieces(self, n_bytes: int) -> Iterator[memoryview]:
        """Yield the next bytes; all of them must be consumed."""
        if n_bytes < 0:
            raise _Unreadable("an array that is longer than it says")
        if self.at + n_bytes > MAX_BYTES:
            raise _Unexpected(f"a variable of {self.at + n_bytes:,} bytes", f"at most {MAX_BYTES:,}")
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
                raise _Unreadable(f"compressed data that are damaged ({error})") from error
            if piece:
                return piece
            if not source:
                raise _Unreadable(f"a variable that is cut off after {self.at:,} bytes")

    def read(self, n_bytes: int) -> bytearray:
        """Read the next bytes; memory grows as they arrive."""
        content = bytearray()
        for piece in self.pieces(n_bytes):
            content += piece
        return content

    def skip(self, n_bytes: int) -> None:
        """Skip the next bytes."""
        for _ in self.pieces(n_bytes):
            pass

    def finish(self) -> None:
        """Raise `_Unreadable` unless compressed data end here, with the right checksum."""
        if self._inflater is not None and not self._inflater.eof:
            source = self._inflater.unconsumed_tail + self._file.read(min(_PIECE, self._left))
            try:
                self._inflater.decompress(source, _PIECE)
            except zlib.error as error:
                raise _Unreadable(f"compressed data that are damaged ({error})") from error
            if not self._inflater.eof:
                raise _Unreadable("compressed data that do not end with their array")

    def tag(self) -> tuple[int, int]:
        """Read type and size of a large element."""
        kind, size = struct.unpack(f"{self.order}II", self.read(8))
        return kind, size

    def element(self, kinds: Sequence[int], max_bytes: int) -> tuple[int, bytearray]:
        """Read type and data of the next element, small (data in the tag) or large (padded to 8 bytes)."""
        start = self.read(8)
        kind, size = struct.unpack(f"{self.order}II", start)
        small, kind = divmod(kind, 1 << 16)
        if kind not in kinds or (small > 4 if small else size > max_bytes):
            raise _Unreadable(f"an element of type {kind} and {small or size:,} bytes in an unexpected place")
        if small:
            return kind, start[4 : 4 + small]
        content = self.read(size)
        self.skip(-size % 8)
        return kind, content
