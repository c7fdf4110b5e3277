"""A dataset's manifest: its sessions, chosen by its `SessionRule` from a listing of its source's files.

Listing files belongs in `archives`, the rules in `catalog`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING

from neuralpile_dagster.archives.model import ArchiveFile, Listing, listing_token
from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster.records import Citation, Model

if TYPE_CHECKING:
    from neuralpile_dagster.catalog.model import Dataset, SessionRule

MAX_KEY = 200
_DIGEST = 16  # hex digits that distinguish ids of which a key cannot hold all

MAX_PATH = 1024
MAX_PATH_PART = 255  # bytes of one name, in every usual file system
# control and format characters, surrogates, line and paragraph separators: they disguise or break paths
_DISGUISES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

Identity = tuple[str | None, ...]


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


def partition_key(session_id: str) -> str:
    """Convert a session id to a valid Dagster partition key and file name.

    The result matches ``^[A-Za-z0-9][A-Za-z0-9_.=+-]{0,199}$``, holds no ``..``
    and does not end in a dot (a file extension may follow); an id that already
    is such a key is returned as it is. Every other character becomes ``_``, as
    does a dot after a dot and one at the end; an id that does not begin with a
    letter or digit gets an ``x`` in front; one that is too long is cut. Where
    the id was changed, ``-`` and 16 hex digits of its sha256 are appended, so
    that different ids have different keys.

    Examples
    --------
    >>> partition_key("sub-A_ses-1")
    'sub-A_ses-1'
    >>> partition_key("day 1/probe..2.")
    'day_1_probe._2_-0f4fb2cfadeb0eaf'
    >>> partition_key("_day")
    'x_day-4d67fd28a47c813f'
    """
    key = _replaced(session_id)
    return key if key == session_id and len(key) <= MAX_KEY else _with_digest(key, session_id)


def _key_of_before(session_id: str) -> str:
    """The key that an id had when only over-long ones got a digest; known sessions keep theirs."""
    key = _replaced(session_id)
    return key if len(key) <= MAX_KEY else _with_digest(key, session_id)


def _replaced(session_id: str) -> str:
    key = re.sub(r"[^A-Za-z0-9_.=+-]|(?<=\.)\.|\.\Z", "_", session_id)
    return key if re.match(r"[A-Za-z0-9]", key) else f"x{key}"


def _with_digest(key: str, session_id: str) -> str:
    digest = hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{key[: MAX_KEY - _DIGEST - 1]}-{digest}"


def subject_of(path: PurePath) -> str:
    """Subject that a file's path names: its nearest ``sub-*`` folder (BIDS), else its parent folder; may be empty."""
    subjects = (folder.name for folder in path.parents if folder.name.startswith("sub-"))
    return next(subjects, path.parent.name)


def choose_sessions(
    dataset: Dataset,
    listing: Listing,
    previous: Manifest | None = None,
    recorded: Callable[[str], tuple[str, str] | None] = lambda key: None,
) -> Manifest:
    """Choose the sessions of a dataset from the files of its source.

    Sessions are in the order of their files' full paths. A session of the
    ``previous`` manifest (of the same source) keeps its id and key when its
    files change form. When it is no longer listed it is carried over, marked
    ``vanished``, unless the rule no longer chooses its files: changing the rule
    is how a person drops it. One whose key another session has now is kept
    apart, as ``replaced``.

    Ids were once made by other rules: the subject was always the parent folder,
    and a key got a digest only when it was too long. Sessions that are known by
    such ids keep them: those of ``previous``, and those for whose key
    ``recorded`` gives the subject id and session id of stored results.

    Raises
    ------
    ArchiveError
        When the listing names a path twice, several files are one session and
        the rule refuses that (or prefers none of them), or two sessions have
        the same partition key.
    """
    rule = _Rule(dataset.sessions)
    chosen, dropped = _select_files(rule, listing.files)
    groups: dict[Identity, list[ArchiveFile]] = {}
    for file in chosen:
        groups.setdefault(rule.identity(file.path), []).append(file)
    known = previous if previous is not None and previous.source_id == listing.source_id else None
    names = rule.names_in_use(known.sessions if known else ())
    ids = _Ids(rule, (*known.sessions, *known.replaced) if known else (), recorded)
    sessions: dict[str, Session] = {}
    for identity, files in groups.items():
        kept = rule.settle(files)
        if len(kept) < len(files):
            dropped["another file of the same session is preferred"] += len(files) - len(kept)
        session = ids.session(kept, names.get(identity))
        if session.key in sessions:
            raise _collision(dataset, sessions[session.key], session)
        sessions[session.key] = session
    gone = (old for old in (*known.sessions, *known.replaced) if _has_vanished(rule, old, groups)) if known else ()
    replaced = _carry_over(gone, sessions)
    return Manifest(
        dataset=dataset.name,
        archive=listing.archive,
        source_id=listing.source_id,
        version=listing.version,
        version_note=listing.version_note,
        newer_version=listing.newer_version,
        source_state=listing_token(listing),
        frozen=listing.frozen,
        synthetic=listing.synthetic or dataset.synthetic,
        listed_at=listing.listed_at,
        citation=_citation(dataset, listing.citation),
        considered=len(listing.files),
        dropped=dict(sorted(dropped.items())),
        sessions=tuple(sorted(sessions.values(), key=lambda session: session.files[0].path)),
        replaced=replaced,
        notes=listing.notes,
    )


def _citation(dataset: Dataset, stated: Citation) -> Citation:
    """What is cited: the source's own metadata, completed by the catalog row; of own recordings what the row states."""
    row = {"license": dataset.license, "authors": dataset.authors, "citation": dataset.citation}
    given = {name: value for name, value in row.items() if value}
    if dataset.source.path is not None and given:
        stated = Citation(title=dataset.title, doi=dataset.doi)  # a dandiset.yaml there is another publication's
    return stated.model_copy(update={name: value for name, value in given.items() if not getattr(stated, name)})


def _has_vanished(rule: _Rule, old: Session, groups: Mapping[Identity, object]) -> bool:
    """Whether a session that the rule would still choose is no longer listed."""
    chosen = all(rule.exclusion_reason(file) is None for file in old.files)
    return chosen and rule.identity(old.files[0].path) not in groups


def _carry_over(gone: Iterable[Session], sessions: dict[str, Session]) -> tuple[Session, ...]:
    """Add vanished sessions to the others, marked; return those whose key another session has."""
    replaced = []
    for old in gone:
        heir = sessions.get(old.key)
        marked = old.model_copy(update={"vanished": True})
        if heir is None:
            sessions[old.key] = marked
        elif not _is_renamed(old, heir):
            replaced.append(marked)
    return tuple(replaced)


def _is_renamed(old: Session, new: Session) -> bool:
    """Whether a session with the same key is the same session: same subject name, or same bytes."""
    if _key_of_before(old.subject_id) == _key_of_before(new.subject_id):
        return True
    digests = {digest for file in old.files for digest in file.digests.items()}
    return any(digest in digests for file in new.files for digest in file.digests.items())


def _search(pattern: re.Pattern[str], path: str) -> re.Match[str] | None:
    """Search a path, or else the path with its suffix in lower case: ``a.NWB`` is an NWB file too."""
    suffix = PurePosixPath(path).suffix
    return pattern.search(path) or pattern.search(path.removesuffix(suffix) + suffix.lower())


class _Rule:
    """A `SessionRule` with its patterns compiled."""

    def __init__(self, rule: SessionRule) -> None:
        self.include = [re.compile(pattern) for pattern in rule.include]
        self.exclude = [re.compile(pattern) for pattern in rule.exclude]
        self.requires = rule.requires
        self.same_session = re.compile(rule.same_session) if rule.same_session else None
        self.several = rule.several

    def exclusion_reason(self, file: ArchiveFile) -> str | None:
        """Reason why the file is not (part of) a session, or None."""
        unsafe = _unsafe(file.path)
        if unsafe:
            return f"unsafe path: {unsafe}"
        if not any(_search(pattern, file.path) for pattern in self.include):
            is_zarr = file.path.lower().endswith(".zarr")
            return "a Zarr folder, which is not read" if is_zarr else "path matches no include pattern"
        for pattern in self.exclude:
            if _search(pattern, file.path):
                return f"path matches exclude pattern {pattern.pattern}"
        if file.variables is not None:  # None: could not be known
            missing = [name for name in self.requires if name not in file.variables]
            if missing:
                return f"metadata has no {', '.join(missing)}"
        return None

    def identity(self, path: str) -> Identity:
        """Identity of the session that a file belongs to."""
        match = _search(self.same_session, path) if self.same_session else None
        return ("groups", *match.groups()) if match else ("path", path)

    def ids(self, path: str) -> tuple[str, str, str]:
        """Subject id, the one of before (see `choose_sessions`) and session id, from a session's first file."""
        match = _search(self.same_session, path) if self.same_session else None
        named = match.groupdict() if match else {}
        place = PurePosixPath(path)
        session_id = named.get("session") or place.stem
        subject = named.get("subject")
        return subject or subject_of(place) or session_id, subject or place.parent.name or session_id, session_id

    def settle(self, files: list[ArchiveFile]) -> list[ArchiveFile]:
        """Select the files to read among those that belong to a session."""
        if len(files) == 1 or self.several == "stack":
            return files
        if self.several == "prefer":
            ranks = [self._rank(file.path) for file in files]
            best = [file for file, rank in zip(files, ranks, strict=True) if rank == min(ranks)]
            if len(best) == 1:
                return best
            files = best
        raise ArchiveError(
            f"{files[0].path} and {files[1].path} are files of the same session",
            found=f"{len(files)} files that `same_session` groups into one session, with equal preference",
            expected="one file per session",
            remedy="leave all but one out with `exclude`, order the patterns of `include` and set `several: prefer`, "
            "or set `several: stack` when each file holds other units",
        )

    def _rank(self, path: str) -> int:
        return next(number for number, pattern in enumerate(self.include) if _search(pattern, path))

    def names_in_use(self, sessions: Iterable[Session]) -> dict[Identity, str]:
        """Session ids of earlier sessions, where an id depends on which of several files is listed."""
        if self.same_session is None or "session" in self.same_session.groupindex:
            return {}
        names: dict[Identity, str] = {}
        for session in sessions:
            names.setdefault(self.identity(session.files[0].path), session.session_id)
        return names


def _select_files(rule: _Rule, files: Iterable[ArchiveFile]) -> tuple[list[ArchiveFile], Counter[str]]:
    """Files that the rule chooses, in path order, and numbers of dropped files by reason."""
    chosen: list[ArchiveFile] = []
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    for file in sorted(files, key=lambda file: file.path):
        if file.path in seen:
            raise ArchiveError(
                f"the archive lists {file.path!r} twice",
                expected="every path once",
                remedy="list it again; the version may have changed while it was being listed",
            )
        seen.add(file.path)
        reason = rule.exclusion_reason(file)
        if reason is None:
            chosen.append(file)
        else:
            dropped[reason] += 1
    return chosen, dropped


class _Ids:
    """Ids and keys of sessions; those that are known by ids of before keep them (see `choose_sessions`)."""

    def __init__(
        self, rule: _Rule, known: Iterable[Session], recorded: Callable[[str], tuple[str, str] | None]
    ) -> None:
        self._rule = rule
        self._recorded = recorded
        known = list(known)
        self._known = {session.session_id for session in known}
        self._subjects = {(session.session_id, session.subject_id) for session in known}
        self._keys = {(session.session_id, session.key) for session in known}

    def session(self, files: Sequence[ArchiveFile], name: str | None) -> Session:
        """The session of these files; ``name`` is its session id where it is known by another one."""
        subject, old_subject, session_id = self._rule.ids(files[0].path)
        session_id = name or session_id
        key, old_key = partition_key(session_id), _key_of_before(session_id)
        if (key, subject) != (old_key, old_subject):
            stored = None if session_id in self._known else self._recorded(old_key)
            keeps_key = (session_id, old_key) in self._keys or (stored is not None and stored[1] == session_id)
            keeps_subject = (session_id, old_subject) in self._subjects or stored == (old_subject, session_id)
            key, subject = old_key if keeps_key else key, old_subject if keeps_subject else subject
        return Session(key=key, subject_id=subject, session_id=session_id, files=tuple(files))


def _collision(dataset: Dataset, one: Session, other: Session) -> ArchiveError:
    return ArchiveError(
        f"two sessions of {dataset.name} have the same partition key {one.key!r}",
        found=f"{one.session_id!r} ({one.files[0].path}) and {other.session_id!r} ({other.files[0].path})",
        expected="session ids that differ in letters, digits or _.=+-",
        remedy="leave one out with `exclude`, or give them other ids with a (?P<session>...) group in `same_session`",
    )


def _unsafe(path: str) -> str | None:
    """Reason why a path is unsafe as a file name or URL; None for an ordinary relative path."""
    parts = path.split("/")
    if any(unicodedata.category(character) in _DISGUISES for character in path):
        return "control characters"
    if not path or len(path) > MAX_PATH or any(len(part.encode()) > MAX_PATH_PART for part in parts):
        return "empty or too long"
    if path.startswith("/") or "\\" in path or re.match(r"[A-Za-z]:", path):
        return "absolute, or with a drive or backslashes"
    if any(part in ("", ".", "..") for part in parts):
        return "empty parts, '.' or '..'"
    return None
