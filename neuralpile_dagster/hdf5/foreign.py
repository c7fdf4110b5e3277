"""What a file that HDF5 cannot open is instead, told from its first bytes: the error names it, and a remedy that fits.

Files that open and hold no units belong in `recordings.nwb`.
"""

from __future__ import annotations

from pathlib import Path

from neuralpile_dagster.errors import DamagedRecording

HEAD_BYTES = 512
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ZARR_FILES = (".zgroup", ".zarray", ".zattrs", ".zmetadata", "zarr.json")

_FETCH = "fetch the file again from its page in the archive; a server's page was saved in its place"
_ZARR = "export it to HDF5 with hdmf-zarr (NWBZarrIO, NWBHDF5IO.export), or exclude it with the session rule"
_GET = "get the content that it stands for (git lfs pull, git annex get, datalad get)"
_MATLAB = (
    "read it with --reader eight_probe_mat (`reader` of the catalog row) if it is of that form, or convert it to NWB"
)
_OTHER = "exclude the file with the dataset's session rule, or convert it to NWB"
_KINDS = (
    ((b"<!doctype html", b"<html"), "an HTML page", _FETCH),
    ((b"<?xml",), "an XML document", _FETCH),
    ((b"matlab",), "a MATLAB 5 file", _MATLAB),
    ((b"version https://git-lfs",), "a Git LFS pointer", _GET),
    ((b"/annex/objects", b".git/annex", b"../.git/annex"), "a git-annex pointer", _GET),
    ((b"pk\x03\x04",), "a ZIP archive", "unpack it; if it holds Zarr, export that to HDF5 with hdmf-zarr"),
    ((b"\x1f\x8b",), "a gzip file", "unpack it with gunzip"),
    ((b"par1",), "a Parquet file", _OTHER),
)


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr array or group."""
    return folder.suffix.lower() == ".zarr" or any((folder / name).is_file() for name in _ZARR_FILES)


def zarr_folder(name: str) -> DamagedRecording:
    """The error for a Zarr folder where a file is expected."""
    return DamagedRecording(f"{name} is a Zarr folder", expected="an NWB file of the HDF5 form", remedy=_ZARR)


def not_hdf5(name: str, size: int, head: bytes, error: OSError, damaged: str) -> DamagedRecording:
    """The error for a file that HDF5 does not open.

    Parameters
    ----------
    name : str
        The file's.
    size : int
        Bytes.
    head : bytes
        The first `HEAD_BYTES` of the file, or all.
    error : OSError
        HDF5's.
    damaged : str
        Remedy for a file that is an HDF5 file, but not all of it.
    """
    found, remedy = f"{size:,} bytes, {error}", damaged
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kind = next((row for row in _KINDS if start.startswith(row[0])), None)
    if not size:
        found = "0 bytes, an empty file"
    elif not head.strip(b"\0"):
        found = f"{size:,} bytes that begin with zeros: space that was reserved and never filled"
    elif kind:
        found, remedy = f"{kind[1]} of {size:,} bytes: {head[:60].decode(errors='replace')!a}", kind[2]
    elif start.startswith(b"{") and b"zarr" in start:
        found, remedy = f"{size:,} bytes of Zarr's metadata", _ZARR
    elif not head.startswith(_SIGNATURE) and len(head) == HEAD_BYTES:
        found = f"{size:,} bytes that begin with {head[:8]!r}, {error}"
    return DamagedRecording(
        f"{name} cannot be opened as HDF5", found=found, expected="a complete NWB (HDF5) file", remedy=remedy
    )
