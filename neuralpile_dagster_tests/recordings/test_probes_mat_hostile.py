"""Reader `eight_probe_mat` on files that claim more than they hold: refused, or passed over, in little memory."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from neuralpile_dagster.errors import DamagedRecording, OutOfMemory
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings import mat
from neuralpile_dagster.recordings.model import read_session
from neuralpile_dagster_tests.fixtures.damaging import within
from neuralpile_dagster_tests.recordings.test_probes_mat import read, trains_of, write_mat

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
CELL, STRUCT, DOUBLE = 1, 2, 6
GOOD = ([1.0, 2.0, 3.0], [1, 2, 1])
SMALL_TEXT = struct.pack("<8I", 6, 8, DOUBLE, 0, 5, 8, 3, 1) + struct.pack("<HH4s", 1, 7, b"abcd")
"""Flags and dimensions of an array, and a name of 7 bytes in a tag that has room for 4."""


def element(kind: int, content: bytes, size: int | None = None) -> bytes:
    """An element that claims ``size`` bytes, by default what it has."""
    return struct.pack("<II", kind, len(content) if size is None else size) + content + bytes(-len(content) % 8)


def array(kind: int, shape: tuple[int, ...], content: bytes, name: str = "", size: int | None = None) -> bytes:
    flags, dims = element(6, struct.pack("<II", kind, 0)), element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, flags + dims + element(1, name.encode()) + content, size)


def numbers(values: list[float]) -> bytes:
    return array(DOUBLE, (len(values), 1), element(9, np.array(values, "<f8").tobytes()))


def spks(extra: bytes, shape: tuple[int, ...] = (1, 1)) -> bytes:
    """A struct of which one field, before those that are read, is ``extra``."""
    names = b"".join(name.ljust(8, b"\0") for name in (b"extra", b"st", b"clu"))
    fields = element(5, struct.pack("<i", 8)) + element(1, names)
    return array(STRUCT, shape, fields + extra + numbers(GOOD[0]) + numbers(list(GOOD[1])), "spks")


def write(path: Path, *arrays: bytes, compressed: bool = True) -> Path:
    parts = [element(15, stream := zlib.compress(part))[: 8 + len(stream)] if compressed else part for part in arrays]
    path.write_bytes(HEADER + b"".join(parts))
    return path


def test_more_spikes_than_the_file_can_hold_are_not_read(tmp_path: Path):
    n_spikes = 3_000_000
    path = write_mat(tmp_path / "a.mat", [(np.zeros(n_spikes), np.ones(n_spikes, "u1"))], do_compression=True)
    assert path.stat().st_size < 100_000
    with (
        within(1 << 23),
        pytest.raises(DamagedRecording, match=r"a\.mat.*3,000,000 values in spks\(1\)\.st"),
    ):
        read(path)


def test_spikes_of_all_probes_together_are_bounded(tmp_path: Path):
    probe = (np.zeros(600_000), np.ones(600_000, "u1"))
    path = write_mat(tmp_path / "b.mat", [probe, probe], do_compression=True)
    with pytest.raises(DamagedRecording, match=r"b\.mat.*600,000 values in spks\(2\)\.st"):
        read(path)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    "extra",
    [
        array(CELL, (2_000_000_000, 1), b""),
        array(4, (2_000_000_000, 1), b""),
        array(CELL, (1, 1), array(CELL, (1, 1), element(14, b"")) * 3),
        element(14, b""),
    ],
    ids=["cells of which none is there", "text of which none is there", "more cells than it says", "nothing"],
)
def test_a_field_that_is_not_asked_for_is_passed_over(tmp_path: Path, extra: bytes, compressed: bool):
    path = write(tmp_path / "a.mat", spks(extra), compressed=compressed)
    with within(1 << 23):
        assert trains_of(read(path)) == [[1.0, 3.0], [2.0]]


def test_cells_in_cells_in_cells_do_not_end_the_process(tmp_path: Path):
    nested = b"".join(array(CELL, (1, 1), b"", size=1 << 20) for _ in range(20_000))
    path = write(tmp_path / "a.mat", spks(array(CELL, (1, 1), nested)))
    assert path.stat().st_size < 10_000
    assert trains_of(read(path)) == [[1.0, 3.0], [2.0]]


def test_field_names_of_no_length_are_none(tmp_path: Path):
    path = write(
        tmp_path / "a.mat", array(STRUCT, (1, 1), element(5, struct.pack("<i", 0)) + element(1, b"st"), "spks")
    )
    with pytest.raises(DamagedRecording, match=r"a\.mat.*spks of shape .* with fields none"):
        read(path)


@pytest.mark.parametrize("shape", [(1, 65), (2**31 - 1, 2**31 - 1), (0, 8)], ids=str)
def test_a_struct_of_too_many_elements_or_none_is_refused(tmp_path: Path, shape: tuple[int, ...]):
    path = write(tmp_path / "a.mat", spks(element(14, b""), shape))
    with pytest.raises(DamagedRecording, match=r"a\.mat.*spks of shape.*1 to 64 elements"):
        read(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (element(15, zlib.compress(spks(element(14, b""))), 1 << 30), "ends at byte 1,073,741,960"),
        (spks(element(14, b"", 0xFFFFFFF0)), "at most 2,147,483,648"),
        (spks(element(14, b"", 1 << 30)), "cut off"),
        (spks(array(DOUBLE, (1, 1), b"", size=8)), "longer than it says|type"),
        (array(DOUBLE, (1, 1), b"", "x" * 20_000), "type 1 and 20,000 bytes"),
        (element(14, element(6, bytes(8)) + element(5, b"", 1 << 30)), "type 5 and 1,073,741,824 bytes"),
        (element(9, bytes(8)), "element of type 9"),
        (element(15, zlib.compress(element(9, bytes(16)))), "a compressed element without an array"),
    ],
    ids=["element", "field", "field cut off", "field too short", "name", "dimensions", "no array", "none compressed"],
)
def test_claimed_bytes_are_not_taken(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "a.mat"
    path.write_bytes(HEADER + content)
    with within(1 << 23), pytest.raises(DamagedRecording, match=rf"a\.mat.*({reason})"):
        read(path)


@pytest.mark.parametrize(
    ("st", "reason"),
    [
        (array(DOUBLE, (3, 1), element(9, bytes(16))), r"16 bytes in spks\(1\)\.st, where 3 values of float64"),
        (array(DOUBLE, (1, 1), element(9, bytes(5))), r"5 bytes in spks\(1\)\.st, where 1 values of float64"),
        (array(DOUBLE, (3, 1), element(2, bytes(24))), r"24 bytes in spks\(1\)\.st, where 3 values of uint8"),
        (element(14, element(6, bytes(4)) + element(5, bytes(8)) + element(1, b"")), "array flags that are cut off"),
        (element(14, element(6, bytes(8)) + element(5, b"") + element(1, b"")), r"\[\] as dimensions or lengths"),
        (array(DOUBLE, (-3, -1), element(9, bytes(24))), r"\[-3, -1\] as dimensions or lengths"),
        (element(9, bytes(24)), r"an element of type 9 as spks\(1\)\.st"),
        (element(14, element(9, bytes(8)) + element(5, bytes(8)) + element(1, b"")), "type 9 and 8 bytes in an unexp"),
        (array(DOUBLE, (3, 1), element(9, bytes(24)), size=8), "an array that is longer than it says"),
        (element(14, SMALL_TEXT + bytes(24)), "type 1 and 7 bytes in an unexpected place"),
    ],
    ids=[
        *("two values where three belong", "half a value", "more bytes than values", "half the flags", "no dimensions"),
        *(
            "dimensions below 0",
            "no array",
            "flags of another type",
            "too short",
            "more text than its tag has room for",
        ),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_lengths_that_contradict_each_other_are_damage(tmp_path: Path, st: bytes, reason: str, compressed: bool):
    names = b"".join(name.ljust(8, b"\0") for name in (b"st", b"clu"))
    fields = element(5, struct.pack("<i", 8)) + element(1, names)
    path = write(
        tmp_path / "a.mat",
        array(STRUCT, (1, 1), fields + st + numbers([1.0, 2.0, 1.0]), "spks"),
        compressed=compressed,
    )
    with pytest.raises(DamagedRecording, match=rf"a\.mat.*{reason}"):
        read(path)


def test_any_change_of_compressed_data_is_noticed(tmp_path: Path):
    rng = np.random.default_rng(0)
    path = write_mat(tmp_path / "a.mat", [(rng.uniform(0, 9, 50), rng.integers(1, 4, 50))], do_compression=True)
    whole = path.read_bytes()
    size = struct.unpack("<I", whole[132:136])[0]
    for at in range(136, 136 + size, 7):
        content = bytearray(whole)
        content[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        with pytest.raises(DamagedRecording, match=r"a\.mat"):
            read(path)


def test_compressed_data_without_their_end_are_damaged(tmp_path: Path):
    stream = zlib.compress(spks(element(14, b"")))
    for missing in (1, 4, 10):
        (tmp_path / "a.mat").write_bytes(HEADER + element(15, stream[:-missing])[: 8 + len(stream) - missing])
        with pytest.raises(DamagedRecording, match=r"a\.mat cannot be read as a MATLAB file.*(cut off|do not end)"):
            read(tmp_path / "a.mat")


def test_a_wrong_checksum_after_the_last_piece_of_compressed_data_is_damage(tmp_path: Path):
    content = spks(element(14, bytes((1 << 20) - len(spks(element(14, b""))))))
    assert len(content) == 1 << 20  # exactly what is inflated at a time
    stream = zlib.compress(content)
    path = tmp_path / "a.mat"
    path.write_bytes(HEADER + element(15, stream)[: 8 + len(stream)])
    assert trains_of(read(path)) == [[1.0, 3.0], [2.0]]
    stream = stream[:-1] + bytes([stream[-1] ^ 1])
    path.write_bytes(HEADER + element(15, stream)[: 8 + len(stream)])
    with pytest.raises(DamagedRecording, match=r"a\.mat.*compressed data that are damaged"):
        read(path)


def test_a_variable_of_a_class_without_dimensions_is_passed_over(tmp_path: Path):
    flags = element(6, struct.pack("<II", 17, 0))  # MATLAB's own objects
    opaque = element(14, flags + element(1, b"words") + element(1, b"MCOS") + element(1, b"string"))
    assert trains_of(read(write(tmp_path / "a.mat", opaque, spks(element(14, b""))))) == [[1.0, 3.0], [2.0]]


def test_a_machine_without_the_memory_is_not_called_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(mat, "read_columns", no_memory)
    path = write_mat(tmp_path / "a.mat", [GOOD])
    with pytest.raises(OutOfMemory, match=r"a\.mat: spks does not fit into the memory.*more memory"):
        read_session("eight_probe_mat", [LocalFile("a.mat", path)])
