"""A dataset's manifest: its sessions, their archive files, and the source version they were listed from.

Choosing the sessions belongs in `sessions`.
"""

from __future__ import annotations

from datetime import datetime

from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.records import Citation, Model


class Session(Model):
    """One recording session: one or more archive files of one subject.

    ``key`` is the session id made safe for a Dagster partition and a file name;
    ``subject_id`` and ``session_id`` are exact. ``vanished`` marks a session
    that an earlier manifest had and the archive no longer lists.
    """

    key: str
    subject_id: str
    session_id: str
    files: tuple[ArchiveFile, ...]
    vanished: bool = False

    @property
    def size(self) -> int:
        """Bytes of all its files in the archive."""
        return sum(file.size for file in self.files)


class Manifest(Model):
    """Sessions that the rule chose from an archive's listing of a dataset.

    ``dropped`` counts the files not chosen, by reason;
    ``considered == chosen + sum(dropped.values())``. Sessions are in the order
    of their files' full paths; those that vanished keep their places.
    ``source_state`` is the token of `archives.model.SourceState` when it was
    listed (None: listed before that was kept), ``newer_version`` says that
    another version than the pinned one is published. ``replaced`` are vanished
    sessions whose key another session has now. ``notes``: see `archives.model.Listing`.
    """

    dataset: str
    archive: str
    source_id: str
    version: str
    version_note: str | None = None
    newer_version: str | None = None
    source_state: str | None = None
    frozen: bool
    synthetic: bool = False
    listed_at: datetime
    citation: Citation = Citation()
    considered: int
    dropped: dict[str, int]
    sessions: tuple[Session, ...]
    replaced: tuple[Session, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> int:
        """Number of listed files that belong to a session (those of vanished sessions are not listed)."""
        return sum(len(session.files) for session in self.sessions if not session.vanished)

    @property
    def vanished(self) -> tuple[Session, ...]:
        """The sessions that the archive no longer lists."""
        return tuple(session for session in self.sessions if session.vanished)

    def session(self, key: str) -> Session:
        """The session of a partition key; raises `KeyError` when there is none."""
        for session in self.sessions:
            if session.key == key:
                return session
        raise KeyError(key)
