"""A small Xet store: takes what the real hf_xet sends, rebuilds the files, and counts bytes.

Formats as in the public xet-core sources (Apache-2.0): a xorb is a row of chunks, each with an
8-byte header; a shard says which chunks of which xorbs make a file, and which chunks a xorb holds.
Both are read here, and shards are written to answer deduplication queries; chunk hashes are taken
on trust, the sha256 of every rebuilt file is checked.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from neuralpile_dagster_tests.servers.hf_hub_store import HubStore, Refused
from neuralpile_dagster_tests.servers.http import Request, Response, json_response

_TAG = b"HFRepoMetaData\x00" + bytes([85, 105, 103, 69, 106, 123, 129, 87, 131, 165, 189, 217, 92, 205, 209, 74, 169])
_BOOKEND = b"\xff" * 32
_FOOTER_BYTES = 200
_WITH_VERIFICATION, _WITH_METADATA = 1 << 31, 1 << 30
_NONE, _LZ4, _BYTE_GROUPED_LZ4 = 0, 1, 2


XET_TOKEN = "xet-token"
"""The token that the hub gives out for the Xet store, which knows no other."""


def hash_bytes(text: str) -> bytes:
    """A hash as stored, from its text: four little-endian words, each printed as a number."""
    return struct.pack("<4Q", *(int(text[at : at + 16], 16) for at in range(0, 64, 16)))


@dataclass(frozen=True)
class _Segment:
    xorb: bytes
    start: int
    stop: int


class XetStore:
    """Xorbs and shards; every byte received is counted."""

    def __init__(self, store: HubStore, count: Callable[[str, int], None]) -> None:
        self._store = store
        self._count = count
        self._folder = store.root / "xorbs"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._described: dict[bytes, bytes] = {}  # xorb hash -> its description in a shard
        self._holders: dict[bytes, tuple[bytes, ...]] = {}  # chunk hash -> the xorbs that came in one shard with it

    def answer(self, request: Request) -> Response:
        """One call of the store's own API (``/v1/...``)."""
        match (request.method, request.path.strip("/").split("/")):
            case ("POST", ["v1", "xorbs", "default", name]):
                return self._add_xorb(name, request.body)
            case ("POST", ["v1", "shards"]):
                return self._add_shard(request.body)
            case ("GET", ["v1", "chunks", _, name]):
                return self._known_chunk(hash_bytes(name))
            case _:
                return Response(404)

    def _add_xorb(self, name: str, body: bytes) -> Response:
        path = self._path(hash_bytes(name))
        self._count("xorb", len(body))
        known = path.exists()
        if not known:
            aside = path.with_suffix(f".{threading.get_ident()}")
            aside.write_bytes(body)
            aside.replace(path)
        return json_response({"was_inserted": not known})

    def _path(self, xorb: bytes) -> Path:
        return self._folder / xorb.hex()

    def _add_shard(self, body: bytes) -> Response:
        self._count("shard", len(body))
        if body[:32] != _TAG:
            raise Refused(400, "not a shard")
        at, files = _files(body, 48)
        described = _xorbs(body, at)
        for sha256, segments in files:
            if not self._store.lfs_path(sha256).exists():
                self._store.add_lfs(b"".join(self._chunks(segment) for segment in segments), sha256)
        with self._lock:
            self._described |= described
            for text in described.values():
                for start in range(48, len(text), 48):
                    self._holders[text[start : start + 32]] = tuple(described)
        return json_response({"result": 1})

    def _chunks(self, segment: _Segment) -> bytes:
        path = self._path(segment.xorb)
        if not path.exists():
            raise Refused(400, f"unknown xorb {segment.xorb.hex()}")
        body, at, parts = path.read_bytes(), 0, []
        for index in range(segment.stop):
            packed, scheme, size = (
                int.from_bytes(body[at + 1 : at + 4], "little"),
                body[at + 4],
                int.from_bytes(body[at + 5 : at + 8], "little"),
            )
            if index >= segment.start:
                parts.append(_unpack(body[at + 8 : at + 8 + packed], scheme, size))
            at += 8 + packed
        return b"".join(parts)

    def _known_chunk(self, chunk: bytes) -> Response:
        with self._lock:
            holders = self._holders.get(chunk)
            if holders is None:
                return Response(404)
            shard = _shard([self._described[xorb] for xorb in sorted(holders)])
        return Response(200, {"Content-Type": "application/octet-stream"}, shard)


def _files(body: bytes, at: int) -> tuple[int, list[tuple[str, list[_Segment]]]]:
    files = []
    while body[at : at + 32] != _BOOKEND:
        flags, count = struct.unpack_from("<II", body, at + 32)
        at += 48
        segments = []
        for _ in range(count):
            start, stop = struct.unpack_from("<II", body, at + 40)
            segments.append(_Segment(body[at : at + 32], start, stop))
            at += 48
        at += 48 * count if flags & _WITH_VERIFICATION else 0
        if not flags & _WITH_METADATA:
            raise Refused(400, "a file without its sha256")
        files.append(("".join(f"{word:016x}" for word in struct.unpack_from("<4Q", body, at)), segments))
        at += 48
    return at + 48, files


def _xorbs(body: bytes, at: int) -> dict[bytes, bytes]:
    described = {}
    while body[at : at + 32] != _BOOKEND:
        (count,) = struct.unpack_from("<I", body, at + 36)
        stop = at + 48 * (1 + count)
        described[body[at : at + 32]] = body[at:stop]
        at = stop
    return described


def _unpack(packed: bytes, scheme: int, size: int) -> bytes:
    if scheme == _NONE:
        return packed
    plain = pa.decompress(packed, decompressed_size=size, codec="lz4", asbytes=True)
    if scheme == _LZ4:
        return bytes(plain)
    if scheme != _BYTE_GROUPED_LZ4:
        raise Refused(400, f"unknown compression {scheme}")
    result, at = bytearray(size), 0
    for group in range(4):
        length = len(range(group, size, 4))
        result[group::4] = plain[at : at + length]
        at += length
    return bytes(result)


def _shard(described: list[bytes]) -> bytes:
    """A shard without files that describes some xorbs, with lookup tables and footer."""
    header = _TAG + struct.pack("<QQ", 2, _FOOTER_BYTES)
    bookend = _BOOKEND + bytes(16)
    xorb_rows, chunk_rows, place = [], [], 0
    for text in described:
        xorb_rows.append((text[:8], place))
        for index in range(1, len(text) // 48):
            chunk_rows.append((text[48 * index : 48 * index + 8], place, index - 1))
        place += len(text) // 48
    by_number = sorted(xorb_rows, key=lambda row: int.from_bytes(row[0], "little"))
    chunks_by_number = sorted(chunk_rows, key=lambda row: int.from_bytes(row[0], "little"))
    xorb_info = b"".join(described) + bookend
    xorb_table = b"".join(key + struct.pack("<I", at) for key, at in by_number)
    chunk_table = b"".join(key + struct.pack("<II", at, index) for key, at, index in chunks_by_number)
    file_info_at = len(header)
    xorb_info_at = file_info_at + len(bookend)
    tables_at = xorb_info_at + len(xorb_info)
    chunks_at = tables_at + len(xorb_table)
    footer_at = chunks_at + len(chunk_table)
    offsets = (1, file_info_at, xorb_info_at, tables_at, 0, tables_at, len(by_number), chunks_at, len(chunks_by_number))
    footer = struct.pack("<9Q", *offsets) + bytes(32) + struct.pack("<QQ", 0, 2**64 - 1) + bytes(48)
    footer += struct.pack("<4Q", 0, 0, 0, footer_at)
    assert len(footer) == _FOOTER_BYTES
    return header + bookend + xorb_info + xorb_table + chunk_table + footer
