"""Read and write Parquet's Thrift structures with ``thriftpy2``, from the IDL that ``fastparquet`` ships."""

from __future__ import annotations

import functools
import importlib.util
import io
import struct
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from neuralpile_dagster.errors import ConfigurationError

MAGIC = b"PAR1"  # the first and last four bytes of a Parquet file
TRAILER = struct.Struct("<I4s")  # length of the footer, magic


@functools.cache
def idl() -> Any:
    """The Parquet IDL as a module: ``idl().FileMetaData`` and so on.

    fastparquet is located, not imported: importing it would import pandas.
    Raises `ConfigurationError` when it is not installed.
    """
    import thriftpy2

    spec = importlib.util.find_spec("fastparquet")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ConfigurationError(
            "the Parquet IDL is not installed",
            expected="parquet.thrift, in the package fastparquet",
            remedy="install fastparquet",
        )
    return thriftpy2.load(str(Path(folders[0]) / "parquet.thrift"), module_name="neuralpile_parquet_thrift")


def decode(kind: str, stream: BinaryIO) -> Any:
    """Read one structure of the IDL at the position of ``stream``; raises `ValueError` when there is none."""
    from thriftpy2.protocol.compact import TCompactProtocol
    from thriftpy2.thrift import TException

    value = getattr(idl(), kind)()
    try:
        TCompactProtocol(stream).read_struct(value)
    except (TException, TypeError, KeyError, IndexError, struct.error, RecursionError) as error:
        # thriftpy2 raises any of these for damaged or truncated bytes
        raise ValueError(f"not a {kind} ({type(error).__name__}: {error})") from error
    return value


def encode(value: Any, stream: BinaryIO) -> None:
    """Write one structure of the IDL to ``stream``; raises `ValueError` when a number does not fit its type."""
    from thriftpy2.protocol.compact import TCompactProtocol
    from thriftpy2.thrift import TException

    try:
        TCompactProtocol(stream).write_struct(value)
    except TException as error:
        raise ValueError(f"not a valid {type(value).__name__} ({error})") from error


def read_footer_bytes(file: pa.NativeFile) -> bytes:
    """Read a file's footer; raises `ValueError` when it has none."""
    size = file.size()
    trailer = file.read_at(min(size, TRAILER.size), max(size - TRAILER.size, 0))
    length, magic = TRAILER.unpack(trailer) if len(trailer) == TRAILER.size else (0, b"")
    start = size - TRAILER.size - length
    if magic != MAGIC or start < len(MAGIC):
        raise ValueError(f"{size:,} bytes that do not end in the footer of a Parquet file")
    content: bytes = file.read_at(length, start)
    return content


def decode_footer(content: bytes) -> Any:
    """The FileMetaData of a footer; raises `ValueError` when it is damaged."""
    return decode("FileMetaData", io.BytesIO(content))
