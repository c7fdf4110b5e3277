"""Read text of untrusted HDF5 files safely: labels, attributes, single texts.

Texts of variable length are stored apart from the dataset that refers to them. Many
values may refer to one text, and each gets a copy of it: a file of 1 MB can
claim any amount of memory. HDF5 does not report lengths before it copies.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import h5py
import numpy as np

from neuralpile_dagster.hdf5.careful import (
    MAX_FREE_BYTES,
    find_dataset,
    read_array,
    reading,
    reading_values,
    shape_of,
)
from neuralpile_dagster.hdf5.opened import OpenFile

MAX_TEXTS = 1_000_000  # of one dataset of text of variable length
MAX_TEXT_BYTES = 1 << 26  # of the texts of one dataset together; those of 3,900 units have 0.1 MB
_REFERENCE_BYTES = 16  # to a text, in the file: its length, and where it lies
_CHUNK_CACHE_BYTES = 1 << 20  # what HDF5 keeps of a dataset at least; a larger chunk is read again for each slice

Labels = list[str | None]


class TooMuchText(Exception):
    """Text exceeds the size limit; the message states the size."""


def text_of(value: object) -> str | None:
    """One value as text: bytes decoded, whole floats without ``.0``; None for NaN, empty, and what is not a scalar."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return None
        value = int(value) if float(value).is_integer() else float(value)
    if not isinstance(value, str | int | float | np.integer | np.bool_):
        return None
    return str(value).strip().strip("\0") or None


def holds_labels(dtype: np.dtype) -> bool:
    """Whether a dataset's values are text or numbers (objects of other kinds, damaged, can crash the HDF5 library)."""
    return dtype.kind in "fiubS" or h5py.check_string_dtype(dtype) is not None


def read_attribute(holder: h5py.Group | h5py.Dataset, attribute: str, name: str) -> object:
    """A single text, number or reference; None when there is no such attribute, or one of another form or too long."""
    with reading(name, f"{holder.name}.{attribute}"):
        if attribute not in holder.attrs:
            return None
        stored = holder.attrs.get_id(attribute)
        is_reference = h5py.check_ref_dtype(stored.dtype) is h5py.Reference
        if stored.shape != () or not (is_reference or holds_labels(stored.dtype)):
            return None
        value = holder.attrs[attribute]
    return None if isinstance(value, str | bytes) and len(value) > MAX_FREE_BYTES else value


def read_text(file: h5py.File, path: str, name: str) -> str | None:
    """A single text (or number) at a path; None when there is none, an empty one, or one above `MAX_FREE_BYTES`."""
    dataset = find_dataset(file, path, name)
    if dataset is None:
        return None
    with reading(name, path):
        shape, dtype = dataset.shape, dataset.dtype
        if shape is None or prod(shape) != 1 or dtype.itemsize > MAX_FREE_BYTES or not holds_labels(dtype):
            return None
    with reading_values(dataset, name):
        value = np.asarray(dataset[()], dtype=object).reshape(-1)[0]
    return None if isinstance(value, str | bytes) and len(value) > MAX_FREE_BYTES else text_of(value)


def read_texts(opened: OpenFile, dataset: h5py.Dataset) -> np.ndarray:
    """All values of a column of text, as `bytes`.

    Takes little more memory than `MAX_TEXT_BYTES`, or than the file has bytes
    if a single text of it is longer than that.

    Returns
    -------
    numpy.ndarray, bytes (``S`` or object), shape (n_texts,)

    Raises
    ------
    TooMuchText
        More than `MAX_TEXT_BYTES` or `MAX_TEXTS`, or large chunks that HDF5 would decode repeatedly.
    DamagedRecording
        See `read_array`.
    """
    name = opened.name
    with reading(name, dataset.name):
        dtype, n_texts = dataset.dtype, prod(dataset.shape or ())
    if dtype.kind == "S":
        require_little_text(n_texts * dtype.itemsize)
        return read_array(opened, dataset, kinds="S", max_values=MAX_TEXT_BYTES)
    if n_texts > MAX_TEXTS:
        raise TooMuchText(f"{n_texts:,} texts, more than {MAX_TEXTS:,}")
    shape_of(dataset, name, n_dims=1, max_values=MAX_TEXTS)
    with reading(name, dataset.name):
        step = max(1, MAX_TEXT_BYTES // max(dataset.file.id.get_filesize(), 1))
        chunk_bytes = prod(dataset.chunks or (0,)) * _REFERENCE_BYTES
    if step < n_texts and chunk_bytes > _CHUNK_CACHE_BYTES:
        raise TooMuchText(f"text in chunks of {dataset.chunks}")
    return _in_slices(dataset, name, n_texts, step)


def require_little_text(n_bytes: int) -> None:
    """Raise `TooMuchText` above `MAX_TEXT_BYTES`."""
    if n_bytes > MAX_TEXT_BYTES:
        raise TooMuchText(f"{n_bytes:,} bytes of text, more than {MAX_TEXT_BYTES:,}")


def _in_slices(dataset: h5py.Dataset, name: str, n_texts: int, step: int) -> np.ndarray:
    """Texts of variable length, ``step`` at a time: no more than may be held even if each is as long as the file."""
    texts = np.empty(n_texts, dtype=dataset.dtype)
    n_bytes = 0
    for start in range(0, n_texts, step):
        part = texts[start : start + step]
        with reading_values(dataset, name):  # indexing with h5py's own slices takes five times as long
            space = dataset.id.get_space()
            long = [length > 1 for length in dataset.shape]  # of a single row or column, the dimension to cut
            space.select_hyperslab(
                tuple(start if is_long else 0 for is_long in long),
                tuple(len(part) if is_long else 1 for is_long in long),
            )
            dataset.id.read(h5py.h5s.create_simple((len(part),)), space, part)
        n_bytes += sum(map(len, part))
        require_little_text(n_bytes)
    return texts


def joined(labels: Labels) -> str | None:
    """Join the distinct labels in order; None when there is none."""
    return ", ".join(dict.fromkeys(label for label in labels if label is not None)) or None


def bounded(labels: Iterable[str | None]) -> Labels:
    """The labels as a list; raises `TooMuchText` when rows repeat long labels until they fill the memory."""
    taken: Labels = []
    n_chars = 0
    for label in labels:
        n_chars += len(label or "")
        require_little_text(n_chars)
        taken.append(label)
    return taken
