"""Read untrusted HDF5 files safely.

No reference is followed out of the file (external links, external storage, virtual
datasets), and nothing is allocated before its declared shape and dtype are
within bounds. What h5py cannot read becomes `DamagedRecording`, naming the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod

import h5py
import numpy as np

from neuralpile_dagster.errors import DamagedRecording, OutOfMemory, UnknownFilter
from neuralpile_dagster.hdf5.opened import OpenFile

MAX_LOOKS = 1_000  # groups looked into by a search; a file with more modules and tables than that is not a usual one
MAX_LINKS = 16  # soft links on the way to one object; HDF5's own default
MAX_EXPANSION = 1032  # deflate cannot do better (zlib.net, "Maximum Compression Factor")
MAX_PLAUSIBLE_EXPANSION = 100  # of measured times
LARGE_BYTES = 80_000_000  # declared sizes below this are read in a second or two, however they compress
MAX_FREE_BYTES = 1 << 16  # declared sizes below this need no check
_FREE_BYTES_OTHER_FILTERS = 1 << 26  # Zstd and Blosc compress repeated values better than deflate can
_MODEST_FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})

_READ_ERRORS = (OSError, LookupError, ValueError, TypeError, RuntimeError, OverflowError)


@contextmanager
def reading(name: str, what: str) -> Iterator[None]:
    """Convert h5py's exceptions inside the block to `DamagedRecording`; only calls of h5py belong there.

    Sizes are checked before, so a `MemoryError` means too small a machine: `OutOfMemory`.
    """
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory.in_reading(name, what) from error
    except _READ_ERRORS as error:
        raise DamagedRecording(
            f"{name}: {what} cannot be read",
            found=f"{type(error).__name__}: {error}",
            remedy="fetch the file again and compare its digest with the archive's; it is truncated or damaged",
        ) from error


def find(file: h5py.File, path: str, name: str) -> h5py.Group | h5py.Dataset | None:
    """The object at an absolute path, or None; ``name`` is the file's, for messages.

    Raises `DamagedRecording` for links that leave the file or never end.
    """
    with reading(name, path):
        node: h5py.Group | h5py.Dataset = file["/"]
        parts = deque(_parts(path))
        links = 0
        while parts:
            part = parts.popleft()
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.ExternalLink):
                raise leaves_the_file(name, path, f"a link to {link.filename!r}")
            if isinstance(link, h5py.SoftLink):
                links += 1
                if links > MAX_LINKS:
                    raise DamagedRecording(f"{name}: the links to {path} never end", found=f"more than {MAX_LINKS}")
                node = file["/"] if link.path.startswith("/") else node
                parts.extendleft(reversed(_parts(link.path)))
            else:
                node = node[part]
        return node if isinstance(node, h5py.Group | h5py.Dataset) else None


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def leaves_the_file(name: str, path: str, found: str) -> DamagedRecording:
    """The error for an object whose data are not in the file."""
    return DamagedRecording(
        f"{name}: {path} lies outside the file",
        found=found,
        expected="data inside the file itself",
        remedy="copy the data into one file; nothing outside an archive file is read",
    )


def names_in(group: h5py.Group, name: str) -> str:
    """Names in a group, for messages."""
    with reading(name, group.name):
        names = sorted(map(str, group))
    return (", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")) or "nothing"


def child_paths(file: h5py.File, path: str, name: str) -> dict[int, str]:
    """Paths of a group's own members, by address in the file; empty when there is no such group."""
    group = find(file, path, name)
    if not isinstance(group, h5py.Group):
        return {}
    with reading(name, path):
        children = [child for child in group if isinstance(child, str)]  # bytes where a name is not UTF-8
        links = [group.id.links.get_info(child.encode("utf-8", "surrogateescape")) for child in children]
        is_hard = [link.type == h5py.h5l.TYPE_HARD for link in links]
        return {link.u: f"{path}/{child}" for child, link, hard in zip(children, links, is_hard, strict=True) if hard}


def groups_with(file: h5py.File, member: str, below: Iterable[str], name: str) -> Iterator[str]:
    """Paths of groups that have a member of that name, at or below the paths ``below``; those near the top first.

    Looks into `MAX_LOOKS` groups at most, and into none of those that it found. Links are not followed.
    """
    waiting = deque(below)
    for _ in range(MAX_LOOKS):
        if not waiting:
            return
        path = waiting.popleft()
        children = child_paths(file, path, name).values()
        if f"{path}/{member}" in children:
            yield path
        else:
            waiting.extend(children)


def find_dataset(file: h5py.File, path: str, name: str) -> h5py.Dataset | None:
    """The dataset at an absolute path, or None; raises `DamagedRecording` when its data lie in other files."""
    dataset = find(file, path, name)
    if not isinstance(dataset, h5py.Dataset):
        return None
    with reading(name, path):
        external, virtual = dataset.external, dataset.is_virtual
    if external or virtual:
        raise leaves_the_file(name, path, "external storage" if external else "a virtual dataset")
    return dataset


@contextmanager
def reading_values(dataset: h5py.Dataset, name: str) -> Iterator[None]:
    """`reading` of a dataset's values, which may be compressed with any filter that ``hdf5plugin`` has.

    Raises `UnknownFilter` when they cannot be read and one of their filters is missing.
    """
    with reading(name, dataset.name):
        missing = _missing_filters(dataset)
    try:
        with reading(name, dataset.name):
            yield
    except DamagedRecording as error:
        if not missing:
            raise
        raise UnknownFilter(
            f"{name}: {dataset.name} cannot be decompressed",
            found=f"HDF5 filter {' and '.join(missing)}, for which this machine has no plugin",
            expected="a filter of HDF5 itself or of the package hdf5plugin (Zstd, Blosc, LZ4, ...)",
            remedy="install the filter's HDF5 plugin and name its folder in HDF5_PLUGIN_PATH, or rewrite the file with "
            "`h5repack -f GZIP=4` where it can be read",
        ) from error


def filters_of(dataset: h5py.Dataset) -> list[tuple[int, str]]:
    """Numbers and names of the filters that a dataset's chunks went through."""
    creation = dataset.id.get_create_plist()
    filters = [creation.get_filter(place) for place in range(creation.get_nfilters())]
    return [(number, label.decode(errors="replace")) for number, _, _, label in filters]


def _missing_filters(dataset: h5py.Dataset) -> list[str]:
    filters = filters_of(dataset)
    if not all(h5py.h5z.filter_avail(number) for number, _ in filters):
        import hdf5plugin  # noqa: F401 - registers its filters; here, because few files need them

    return [f"{number} ({label})" for number, label in filters if not h5py.h5z.filter_avail(number)]


def as_column(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``(n,)`` for ``(n, 1)`` and ``(1, n)``, as programs for MATLAB write columns; other shapes as they are."""
    return (prod(shape),) if len(shape) == 2 and 1 in shape else shape


def shape_of(dataset: h5py.Dataset, name: str, *, n_dims: int, max_values: int) -> tuple[int, ...]:
    """The declared shape; raises `DamagedRecording` when rank, size or claimed bytes are out of bounds.

    Where one dimension is expected, a matrix of one column or row counts as
    one (`as_column`). ``max_values`` bounds the number of values. A dataset
    that claims more than `MAX_EXPANSION` times its stored bytes is refused
    too: no real dataset compresses that well, and reading it would only fill
    memory.
    """
    with reading(name, dataset.name):
        shape, item_size, stored = dataset.shape, dataset.dtype.itemsize, dataset.id.get_storage_size()
        modest = all(number in _MODEST_FILTERS for number, _ in filters_of(dataset))
    if shape is not None and n_dims == 1:
        shape = as_column(shape)
    if shape is None or len(shape) != n_dims:
        raise DamagedRecording(
            f"{name}: {dataset.name} has an invalid shape",
            found="no values at all" if shape is None else f"shape {shape}",
            expected="one dimension, or a single row or column" if n_dims == 1 else f"{n_dims} dimensions",
        )
    size = prod(shape)
    if size > max_values:
        raise DamagedRecording(
            f"{name}: {dataset.name} claims to be larger than any recording",
            found=f"{size:,} values",
            expected=f"at most {max_values:,}",
        )
    free = MAX_FREE_BYTES if modest else _FREE_BYTES_OTHER_FILTERS
    if size * item_size > max(free, stored * MAX_EXPANSION):
        raise DamagedRecording(
            f"{name}: {dataset.name} was never written in full",
            found=f"{size * item_size:,} bytes claimed, {stored:,} stored",
            remedy="fetch the file again, or ask its authors; the missing values cannot be recovered",
        )
    return tuple(int(length) for length in shape)


def require_plausible(dataset: h5py.Dataset, name: str) -> None:
    """Raise `DamagedRecording` for a large dataset of measured times that no file of this size can hold.

    Deflate shrinks constant values a thousandfold, so that a file of 1 MB would be decompressed and binned for
    minutes; times that differ shrink some tenfold at most. Bytes that chunks share count once.
    """
    with reading(name, dataset.name):
        claimed = dataset.size * dataset.dtype.itemsize
        held = min(dataset.id.get_storage_size(), dataset.file.id.get_filesize())
    if claimed > max(LARGE_BYTES, held * MAX_PLAUSIBLE_EXPANSION):
        raise DamagedRecording(
            f"{name}: {dataset.name} claims to hold more than its file can",
            found=f"{claimed:,} bytes from {held:,} stored, {claimed / max(held, 1):,.0f} times as many",
            expected=f"at most {MAX_PLAUSIBLE_EXPANSION} times as many, as of times that differ",
            remedy="look at its values: they are constant, or the file is made to exhaust memory",
        )


_KIND_NAMES = {
    "f": "floating-point numbers",
    "i": "integers",
    "u": "unsigned integers",
    "b": "booleans",
    "O": "references or texts",
    "S": "texts",
}


def _kinds_in_words(kinds: str) -> str:
    if "f" in kinds:
        return "numbers"
    return "whole numbers" if "i" in kinds else "the expected type"


def read_array(
    opened: OpenFile, dataset: h5py.Dataset, *, kinds: str = "fiub", n_dims: int = 1, max_values: int
) -> np.ndarray:
    """All values of a dataset, checked before they are read.

    Parameters
    ----------
    opened : OpenFile
        The file that the dataset belongs to; its `OpenFile.read` does the reading.
    kinds : str
        Allowed `numpy.dtype.kind` letters.
    n_dims, max_values : int
        See `shape_of`.

    Returns
    -------
    numpy.ndarray
        Of the dataset's dtype and the shape that `shape_of` gives.

    Raises
    ------
    DamagedRecording
        When the dtype is of another kind, the shape is out of bounds, or the values cannot be read.
    UnknownFilter
        See `reading_values`.
    """
    shape = shape_of(dataset, opened.name, n_dims=n_dims, max_values=max_values)
    with reading(opened.name, dataset.name):
        kind, dtype, stored_shape = dataset.dtype.kind, dataset.dtype, dataset.shape
    if kind not in kinds:
        raise DamagedRecording(
            f"{opened.name}: {dataset.name} is not of {_kinds_in_words(kinds)}",
            found=f"dtype {dtype}",
            expected=" or ".join(_KIND_NAMES[kind] for kind in kinds),
            remedy="write the file again with pynwb or MatNWB, which give columns the types of NWB, or exclude it",
        )
    with reading_values(dataset, opened.name):
        values = opened.read(dataset)
    if values.shape != stored_shape:
        raise DamagedRecording(
            f"{opened.name}: {dataset.name} returned another shape", found=f"{values.shape}", expected=f"{stored_shape}"
        )
    return values if values.shape == shape else values.reshape(shape)
