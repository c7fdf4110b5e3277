"""Reading a session: its open files -> `Recording`, by the reader that its catalog row names.

Which readers there are is in `catalog.readers`; how each reads is in a module of its own, imported when it is needed.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from neuralpile_dagster.catalog.readers import Options, get_reader
from neuralpile_dagster.errors import CatalogError, ConfigurationError
from neuralpile_dagster.hdf5.opened import OpenFile

if TYPE_CHECKING:
    from neuralpile_dagster.recordings.model import Recording


NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def read_session(reader: str, files: Sequence[OpenFile], options: Mapping[str, Any] = NO_OPTIONS) -> Recording:
    """Read a session's files, in their order.

    Parameters
    ----------
    reader : str
        Its name (`catalog.readers`), e.g. ``"units"``.
    files : sequence of OpenFile
        At least one; several (e.g. the probes of one session) only for a reader that takes several.
    options : mapping
        ``reader_options`` of the catalog row.

    Raises
    ------
    ConfigurationError
        There is no such reader, no file, more files than the reader takes, or an option that it does not have.
    RecordingError
        A file has nothing to read, or is damaged; the message names it.
    """
    row = get_reader(reader)
    if not files:
        raise ConfigurationError("a session without files cannot be read")
    if len(files) > 1 and not row.several_files:
        raise CatalogError(
            f"the reader {row.name} takes one file per session",
            found=f"{len(files)} files, the first {files[0].name}",
            remedy="change `same_session` and `several` of the dataset's session rule",
        )
    read = pkgutil.resolve_name(row.reads)
    what = files if row.several_files else files[0]
    configured = row.configured(options)
    recording: Recording = read(what) if type(configured) is Options else read(what, configured)
    return recording


def reader_version(reader: str, options: Mapping[str, Any] = NO_OPTIONS) -> str:
    """The reader's code version, with its options; raises `ConfigurationError` when there is no such reader."""
    return get_reader(reader).version_of(options)
