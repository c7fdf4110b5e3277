"""Datasets of any layout, read remotely, are what h5py reads from the local file."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralpile_dagster_tests.fixtures.bucket import TIMES, Bucket, Write, assert_same, dataset, read, write
from neuralpile_dagster_tests.servers.http import Server


def growing(file: h5py.File, chunk: int = 500, **options: Any) -> None:
    """Two columns that grow in turn, their chunks and indexes mixed with each other, as old recordings have them."""
    columns = [
        file.create_dataset(name, (0,), "f8", maxshape=(None,), chunks=(chunk,), compression="gzip", **options)
        for name in ("x", "y")
    ]
    for start in range(0, len(TIMES), 5000):
        for column in columns:
            column.resize((min(start + 5000, len(TIMES)),))
            column[start:] = TIMES[start : start + 5000]


def twelve_bits(file: h5py.File) -> None:
    """Integers that use some bits of their bytes: not what numpy's integers look like."""
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)
    h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((100_000,)))
    file["x"][:] = np.arange(100_000) % 2000


def compact(file: h5py.File) -> None:
    """Values in the object's header."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((7,)), creation)
    file["x"][:] = TIMES[:7]


LAYOUTS: dict[str, Write] = {
    "contiguous": dataset(),
    "chunked": dataset(chunks=(30_000,)),
    "gzip": dataset(chunks=(30_000,), compression="gzip"),
    "gzip in chunks of several MB": dataset(data=np.tile(TIMES, 5), chunks=(400_000,), compression="gzip"),
    "gzip and shuffle": dataset(chunks=(30_000,), compression="gzip", shuffle=True),
    "gzip and shuffle in chunks of several MB": dataset(
        data=np.tile(TIMES, 5), chunks=(400_000,), compression="gzip", shuffle=True
    ),
    "shuffle": dataset(chunks=(30_000,), shuffle=True),
    "small old chunks": growing,
    "small old chunks with shuffle": lambda file: growing(file, shuffle=True),
    "fletcher32": dataset(chunks=(30_000,), fletcher32=True),
    "gzip and fletcher32": dataset(chunks=(30_000,), compression="gzip", fletcher32=True),
    "lzf": dataset(chunks=(30_000,), compression="lzf"),
    "scale and offset": dataset(chunks=(30_000,), data=np.arange(200_000), scaleoffset=0),
    "float32": dataset(data=TIMES.astype("f4"), chunks=(30_000,), compression="gzip", shuffle=True),
    "float16": dataset(data=TIMES.astype("f2")),
    "big endian": dataset(data=TIMES.astype(">f8"), chunks=(30_000,), shuffle=True),
    "uint8": dataset(data=(TIMES % 256).astype("u1"), chunks=(30_000,), compression="gzip", shuffle=True),
    "booleans": dataset(data=TIMES > 7, chunks=(30_000,)),
    "text": dataset(data=["good"] * 50_000, chunks=(1000,), dtype=h5py.string_dtype()),
    "records": dataset(data=np.zeros(40_000, [("a", "f8"), ("b", "i2")]), chunks=(1000,)),
    "empty": dataset(data=np.empty(0)),
    "empty and chunked": lambda file: file.create_dataset("x", (0,), "f8", maxshape=(None,), chunks=(100,)),
    "null": dataset(data=h5py.Empty("f8")),
    "scalar": dataset(data=3.5),
    "never written": lambda file: file.create_dataset("x", (100_000,), "f8", fillvalue=-1.0),
    "a few": dataset(data=np.arange(7.0)),
    "compact": compact,
    "twelve bits": twelve_bits,
    "enumeration": dataset(data=np.arange(100_000) % 2, dtype=h5py.enum_dtype({"no": 0, "yes": 1}, "i8")),
    "two dimensions in rows": dataset(data=TIMES[:200_000].reshape(-1, 8), chunks=(999, 8), compression="gzip"),
    "two dimensions in tiles": dataset(
        data=TIMES[:200_000].reshape(400, 500), chunks=(70, 90), compression="gzip", shuffle=True
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_layout_is_read_as_h5py_reads_it(bucket_server: Server, bucket: Bucket, name: str, libver: str):
    write(bucket.path, LAYOUTS[name], libver=libver)
    assert_same(bucket_server)


@pytest.mark.parametrize("name", ["contiguous", "gzip and shuffle", "compact"])
def test_a_file_with_a_userblock_is_read_as_h5py_reads_it(bucket_server: Server, bucket: Bucket, name: str):
    write(bucket.path, LAYOUTS[name], userblock_size=2048)
    assert_same(bucket_server)


def test_chunks_that_were_never_written_hold_the_fill_value(bucket_server: Server, bucket: Bucket):
    def make(file: h5py.File) -> None:
        x = file.create_dataset("x", (100_000,), "f8", chunks=(7000,), fillvalue=-3.0, compression="gzip")
        x[20_000:30_000] = 1.0
        x[-5:] = 2.0

    write(bucket.path, make)
    assert_same(bucket_server)


@pytest.mark.parametrize("mask", [0, 1, 2, 3])
def test_filters_that_a_chunk_was_not_given_are_not_undone(bucket_server: Server, bucket: Bucket, mask: int):
    values = TIMES[:40_000]

    def make(file: h5py.File) -> None:
        x = file.create_dataset("x", (80_000,), "f8", chunks=(40_000,), compression="gzip", shuffle=True)
        x[40_000:] = values  # an ordinary chunk beside it
        stored = values.tobytes() if mask & 1 else values.view("u1").reshape(-1, 8).T.tobytes()
        x.id.write_direct_chunk((0,), stored if mask & 2 else zlib.compress(stored), mask)

    write(bucket.path, make)
    assert_same(bucket_server)


DTYPES = st.sampled_from(["f8", "f4", ">f8", "i8", "u4", "u2", "i1", "?"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_layout_is_read_as_h5py_reads_it(bucket_server: Server, bucket: Bucket, data: st.DataObject):
    draw = data.draw
    rank = draw(st.integers(1, 3))
    most = {1: 120_000, 2: 400, 3: 60}[rank]
    shape = tuple(draw(st.integers(1, most)) for _ in range(rank))
    dtype = np.dtype(draw(DTYPES))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 2**40, shape).astype(dtype)
    options: dict[str, Any] = {"shape": shape, "dtype": dtype}
    chunked = draw(st.booleans())
    if chunked:
        options["chunks"] = tuple(draw(st.integers(max(1, length // 40), length)) for length in shape)
        options["shuffle"] = draw(st.booleans())
        options["fletcher32"] = draw(st.sampled_from([False, False, True]))
        options["compression"] = draw(st.sampled_from([None, "gzip", "lzf"]))
        options["fillvalue"] = draw(st.sampled_from([None, 1]))
    start = draw(st.integers(0, shape[0] - 1)) if chunked else 0
    stop = draw(st.integers(start, shape[0])) if chunked else shape[0]

    def make(file: h5py.File) -> None:
        file.create_dataset("before", data=TIMES[: draw(st.integers(1, 3000))])
        file.create_dataset("x", **options)[start:stop] = values[start:stop]
        file.create_dataset("after", data=TIMES[:3000])

    write(bucket.path, make, libver=draw(st.sampled_from(["earliest", "v110", "latest"])))
    assert_same(bucket_server)


@pytest.mark.parametrize("shape", [(200_003,), (200, 300)], ids=["in rows", "in tiles"])
def test_chunks_outside_the_shape_are_passed_over_as_hdf5_does(
    bucket_server: Server, bucket: Bucket, shape: tuple[int, ...]
):
    chunks = (30_000,) if len(shape) == 1 else (70, 90)
    values = TIMES[: np.prod(shape)].reshape(shape)
    write(bucket.path, dataset(data=values, chunks=chunks, compression="gzip"), libver="earliest")
    claimed = (shape[0] // 2, *shape[1:])
    content = bucket.path.read_bytes()
    shapes = [struct.pack(f"<{len(shape)}Q", *each) for each in (shape, claimed)]
    assert content.count(shapes[0]) >= 1
    bucket.path.write_bytes(content.replace(*shapes))
    assert_same(bucket_server)
    found, _ = read(bucket_server)
    np.testing.assert_array_equal(found, values[: claimed[0]])


def test_a_chunk_at_a_place_that_no_array_has_is_passed_over_as_hdf5_does(bucket_server: Server, bucket: Bucket):
    write(bucket.path, dataset(data=TIMES[:200_003], chunks=(30_000,), compression="gzip"), libver="earliest")
    with h5py.File(bucket.path) as file:
        last = file["x"].id.get_chunk_info(6)
    content = bucket.path.read_bytes()
    key = struct.pack("<IIQQ", last.size, last.filter_mask, *last.chunk_offset, 0)
    assert content.count(key) == 1
    far = (2**63 // 30_000 + 1) * 30_000  # more than a signed integer of 64 bits holds
    bucket.path.write_bytes(content.replace(key, struct.pack("<IIQQ", last.size, last.filter_mask, far, 0)))
    assert_same(bucket_server)
    found, _ = read(bucket_server)
    np.testing.assert_array_equal(found[:180_000], TIMES[:180_000])
    assert not found[180_000:].any()
