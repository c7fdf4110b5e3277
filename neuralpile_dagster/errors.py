"""All errors that this package raises on purpose; where they are raised belongs in other modules.

One tree, so that callers decide by type: a `TransientError` (network, 5xx, a
busy hub) may succeed on a retry; every other `NeuralPileError` will not until
something is changed.

    NeuralPileError
    +-- ConfigurationError          settings, run configuration, environment
    |   +-- CatalogError            a row of the catalog (names row and field)
    +-- ArchiveError                an archive's listing or file
    |   +-- DigestMismatch          bytes that differ from the archive's digest
    +-- RecordingError              what is inside a recording
    |   +-- DamagedRecording        not readable, or breaks its own index
    |   +-- NoUnits                 no units table or no spike times
    |   +-- EmptyRecording          nothing to bin
    |   +-- UnknownFilter           compressed in a way that is not known here
    |   +-- OutOfMemory             within bounds, but too large for this machine
    +-- StoreError                  the store cannot be written or read
    |   +-- DiskFull
    |   +-- DocumentError           a stored document cannot be used
    |       +-- NewerDocument       a newer version of this program made it
    +-- TableError                  a Parquet file is damaged or has another schema
    +-- HubError                    publishing
    |   +-- HubConflict             another process published meanwhile
    +-- MergeError                  the pile's plan or shards
    +-- InvalidArray                (also a ValueError) counts or tokens that a caller gives
    +-- TransientError
        +-- ArchiveUnavailable      (also an ArchiveError)
        +-- StoreUnavailable        (also a StoreError)
        +-- HubUnavailable          (also a HubError)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class NeuralPileError(Exception):
    """Base of all errors: what is wrong, found, expected and a remedy, in one paragraph.

    Parameters
    ----------
    what : str
        The thing concerned and what is wrong with it, e.g.
        ``"sub-01/sub-01_ses-1.nwb has no units table"``.
    found, expected : str, optional
        Found and expected values.
    remedy : str, optional
        Advice to the reader of the message.
    """

    def __init__(self, what: str, *, found: str = "", expected: str = "", remedy: str = "") -> None:
        self.what = what
        self.found = found
        self.expected = expected
        self.remedy = remedy
        parts = [
            what,
            f"found: {found}" if found else "",
            f"expected: {expected}" if expected else "",
            f"what to do: {remedy}" if remedy else "",
        ]
        text = "; ".join(part.rstrip(".; ") for part in parts if part)
        super().__init__(text if text.endswith("?") else text + ".")

    def __reduce__(self) -> tuple[Any, ...]:
        # keyword arguments do not survive Exception's own pickling
        fields = {"found": self.found, "expected": self.expected, "remedy": self.remedy}
        return _rebuild, (type(self), self.what, fields)


def _rebuild(kind: type[NeuralPileError], what: str, fields: dict[str, str]) -> NeuralPileError:
    return kind(what, **fields)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Remedy for an unknown name: the closest known one, or nothing when none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


class TransientError(NeuralPileError):
    """An error that may disappear on a retry."""


class ConfigurationError(NeuralPileError):
    """A setting, a run configuration or an environment variable is invalid."""


class CatalogError(ConfigurationError):
    """A row of the catalog is invalid."""


class ArchiveError(NeuralPileError):
    """A requested file or dataset is missing in an archive, or its response is invalid."""


class ArchiveUnavailable(ArchiveError, TransientError):
    """An archive could not be reached, or responded that it is busy."""


class DigestMismatch(ArchiveError):
    """A file's bytes do not match the digest that its archive lists."""


class RecordingError(NeuralPileError):
    """A recording cannot be used."""


class DamagedRecording(RecordingError):
    """A recording cannot be read, or contradicts itself."""


class NoUnits(RecordingError):
    """A recording has no units table, or units without spike times."""


class EmptyRecording(RecordingError):
    """A recording has nothing to bin: no spike later than time 0, or no time span."""


class UnknownFilter(RecordingError):
    """A recording's values went through an HDF5 filter that this machine cannot undo."""


class OutOfMemory(RecordingError):
    """A recording is within bounds, but this machine has too little memory for it."""

    @classmethod
    def in_reading(cls, name: str, what: str) -> OutOfMemory:
        """The error for a part of the file ``name``."""
        return cls(
            f"{name}: {what} does not fit into the memory that this machine has free",
            remedy="read it on a machine with more memory, or run fewer sessions at the same time",
        )


class StoreError(NeuralPileError):
    """The store cannot be read or written."""


class StoreUnavailable(StoreError, TransientError):
    """The store could not be reached."""


class DiskFull(StoreError):
    """There is not enough free space for a file about to be written."""


class DocumentError(StoreError):
    """A stored document is damaged, or another one than it should be."""


class NewerDocument(DocumentError):
    """A newer version of this program made a stored document."""


class TableError(NeuralPileError):
    """A Parquet file of ours is damaged, or is not of the expected schema."""


class HubError(NeuralPileError):
    """A dataset cannot be published or read back."""


class HubConflict(HubError):
    """A repository changed while it was being published to."""


class HubUnavailable(HubError, TransientError):
    """The hub could not be reached, or responded that it is busy."""


class MergeError(NeuralPileError):
    """The pile cannot be planned or merged as requested."""


class InvalidArray(NeuralPileError, ValueError):
    """Counts or tokens that a caller gives are not those of a row, or of a vocabulary."""
