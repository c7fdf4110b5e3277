"""A hub that is a folder of this machine, laid out as `datasets.load_dataset` reads it.

    <root>/<namespace>/<name>                            -> .versions/<name>/<version>
    <root>/<namespace>/.versions/<name>/<version>/       README.md, data/, units/, ...
    <root>/<namespace>/.versions/<name>/<version>.json   the files' sizes and digests

A version is assembled under a temporary name and appears when one rename
points the (relative, symbolic) link at it: whoever opens the repository sees
the old version or the new one, also after a crash or a power cut at any moment.
Large files are hard links to the published folder where both lie on one disk,
so the writers of such folders replace files by renaming, never in place.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter

from neuralpile_dagster.errors import DocumentError, HubConflict, HubError, NewerDocument
from neuralpile_dagster.files import (
    DigestWriter,
    explained,
    locked,
    require_free,
    sha256_once,
    sync,
    temporary_name,
    write_bytes,
)
from neuralpile_dagster.hub import Publication, RepositoryFile, check_repository_name, list_folder, version_digest
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.records import Model, document, read_document
from neuralpile_dagster.settings import ProcessSettings
from neuralpile_dagster.store import NO_LINKS

_ATTEMPTS = 5
_FOLDER = ".versions"
_Listing = tuple[RepositoryFile, ...]
_OLD_LISTING = TypeAdapter(_Listing)
_LINK_FROM_BYTES = 1 << 20
"""Smaller files are copied: people edit cards in place, and a linked one would change in the staging folder too."""
_BLOCK = 1 << 22


class LocalHub:
    """A `neuralpile_dagster.hub.Hub` in the folder ``root``.

    Reading methods also take ``namespace/name``, for repositories of others in the same folder.
    """

    def __init__(self, root: Path, namespace: str) -> None:
        self.root = root
        self.namespace = check_repository_name(namespace)

    def path(self, name: str) -> Path:
        """What to give to `datasets.load_dataset`; raises `HubError` for an impossible name."""
        namespace, slash, short = name.rpartition("/")
        return self.root / check_repository_name(namespace if slash else self.namespace) / check_repository_name(short)

    def find(self, name: str) -> Path | None:
        """The folder of a repository; None where there is none of that name."""
        try:
            path = self.path(name)
        except HubError:
            return None
        return path if path.is_dir() else None

    def require_credentials(self) -> None:
        """See `Hub.require_credentials`: a folder needs none."""

    def publish(self, name: str, folder: Path, progress: Progress = print) -> Publication:
        """See `Hub.publish`. Waits while another process publishes to the same repository.

        Raises `DiskFull` before anything is copied to a disk that is too small,
        and `HubError` when the place is taken by something that is not ours.
        """
        versions = Versions(self.root / self.namespace / check_repository_name(name))
        if ProcessSettings.from_environment().private:
            progress(f"{name}: NEURALPILE_PRIVATE has no effect here: whoever may read {self.root} reads it")
        with explained(versions.link), versions.locked(progress):
            progress(f"{name}: reading {folder}")
            files = list_folder(folder)
            version = version_digest(files)
            damaged = versions.damaged(folder, files)
            changed = bool(damaged) or versions.published() != files
            versions.remove_others()
            copied = versions.add(version, files, folder, progress) if changed else 0
            versions.remove_others()
        for path, found in damaged.items():
            progress(f"{name}: {path} was damaged in the hub ({found}) and is repaired")
        progress(f"{name}: version {version} {'' if changed else 'is already '}published at {versions.link}")
        return Publication(
            repository=f"{self.namespace}/{name}",
            version=version,
            url=str(versions.link),
            changed=changed,
            files=files,
            bytes_sent=copied,
        )

    def files(self, name: str) -> tuple[RepositoryFile, ...]:
        """See `Hub.files`. The files of a folder that somebody else put there are hashed now."""
        versions = Versions(self.path(name))
        for _ in range(_ATTEMPTS):
            current = versions.current()
            if current is None:
                return list_folder(versions.link) if versions.link.is_dir() else ()
            try:
                return listing(current)
            except FileNotFoundError:
                if versions.current() == current:  # not replaced meanwhile, but a listing that is lost
                    return list_folder(current)
        raise _restless(versions.link)

    def open(self, name: str, path: str) -> BinaryIO:
        """See `Hub.open`. Raises `HubError` when the repository has no such file."""
        link = self.path(name)
        for _ in range(_ATTEMPTS):
            folder = link.resolve()
            target = (folder / path).resolve()
            if target.is_relative_to(folder) and target.is_file():
                try:
                    return target.open("rb")
                except FileNotFoundError:
                    continue  # replaced by a new version between the two lines
            if link.resolve() == folder:
                raise HubError(
                    f"{link} has no file {path}",
                    found="other files" if folder.is_dir() else "no such repository",
                    remedy="materialize that dataset's hub_dataset, or correct the name",
                )
        raise _restless(link)

    def page(self, name: str) -> None:
        """See `Hub.page`: a folder has none."""

    def repositories(self) -> Iterator[str]:
        """Names of the namespace's repositories, sorted."""
        folder = self.root / self.namespace
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir() and not path.name.startswith("."):
                yield path.name


def _restless(link: Path) -> HubConflict:
    return HubConflict(
        f"{link} was replaced during each of {_ATTEMPTS} attempts to read it",
        remedy="try again after publishing has finished",
    )


class _Version(Model):
    """What a version was published with."""

    files: _Listing


def listing(version: Path) -> _Listing:
    """What a version was published with; raises `FileNotFoundError` when it is gone or unreadable."""
    path = _listing_path(version)
    text = path.read_bytes()
    try:
        if text.startswith(b"["):  # form 0
            return _OLD_LISTING.validate_json(text)
        return read_document(text, _Version, str(path)).files
    except NewerDocument:
        raise
    except (DocumentError, ValueError) as error:  # what it says can be told from the files again
        raise FileNotFoundError(errno.ENOENT, f"unreadable: {error}", str(path)) from error


def _listing_path(version: Path) -> Path:
    return version.with_name(f"{version.name}.json")


@dataclass(frozen=True)
class Versions:
    """The versions of the repository that readers find at ``link``."""

    link: Path

    @property
    def folder(self) -> Path:
        """Where the versions lie."""
        return self.link.parent / _FOLDER / self.link.name

    def current(self) -> Path | None:
        """Folder of the version that readers see; None when there is none."""
        if not self.link.is_symlink():
            return None
        target = self.link.parent / self.link.readlink()
        return target if target.is_dir() else None

    def published(self) -> _Listing:
        """What readers see was published with; empty when there is none, or its listing is unreadable."""
        current = self.current()
        try:
            return listing(current) if current is not None else ()
        except FileNotFoundError:
            return ()

    def damaged(self, source: Path, files: _Listing) -> dict[str, str]:
        """Files of the current version that are not what was published, each with what was found instead.

        ``files`` are those of ``source``, just read: what is a link to one of them is not read again.
        """
        current = self.current() or self.link
        known = {file.path: file.sha256 for file in files}
        found = {}
        for file in self.published():
            path = current / file.path
            if _size(path) != file.size:
                found[file.path] = f"{size:,} bytes" if (size := _size(path)) is not None else "missing"
                continue
            same = file.path in known and path.samefile(source / file.path)
            digest = known[file.path] if same else sha256_once(path)
            if digest != file.sha256:
                found[file.path] = f"sha256 {digest}, published with {file.sha256}"
        return found

    @contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Hold the repository's lock, which the operating system releases even when this process is killed."""
        if self.link.is_symlink():
            ours = self.link.readlink().parent == Path(_FOLDER, self.link.name)
        else:
            ours = not self.link.exists()
        if not ours:
            raise HubError(
                f"{self.link} was not created by this hub and is left unchanged",
                found="a link to somewhere else" if self.link.is_symlink() else "a folder or file",
                remedy="move it away, or publish under another NEURALPILE_NAMESPACE",
            )
        with locked(self.folder / "lock", progress, f"{self.link.name} is being published"):
            yield

    def add(self, version: str, files: _Listing, source: Path, progress: Progress) -> int:
        """Make a version of the files in ``source`` the current one; give the bytes that had to be copied.

        Only under the lock. Raises `DiskFull` before copying, and `HubConflict`
        when a file of ``source`` is not, any more, what ``files`` says.
        """
        temporary = self.folder / temporary_name()
        try:
            copied = self._assemble(temporary, files, source, progress)
        except FileNotFoundError as error:
            raise _changed(source, f"{error.filename} is missing") from error
        final = self._free_name(version)
        write_bytes(_listing_path(final), document(_Version(files=files)).encode())
        temporary.rename(final)
        sync(self.folder)
        pointer = self.folder / temporary_name()
        pointer.symlink_to(Path(_FOLDER, self.link.name, final.name))  # relative, so that the home can be moved
        pointer.replace(self.link)
        sync(self.link.parent)
        return copied

    def remove_others(self) -> None:
        """Remove all but the current version, and what interrupted publications left. Only under the lock."""
        current = self.current()
        kept = {"lock"} if current is None else {"lock", current.name, _listing_path(current).name}
        for path in self.folder.iterdir():
            if path.name in kept:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _free_name(self, version: str) -> Path:
        # the name is taken when the current version was damaged and is published again
        names = (version, *(f"{version}-{n}" for n in range(2, 1000)))
        return next(self.folder / name for name in names if not (self.folder / name).exists())

    def _assemble(self, temporary: Path, files: _Listing, source: Path, progress: Progress) -> int:
        origins = self._link_origins(files, source)
        copies = sum(file.size for file in files if file.path not in origins)
        require_free(self.folder, copies, f"publishing {self.link.name}")
        for file in files:
            target = temporary / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.path in origins:
                os.link(origins[file.path], target)
            else:
                _copy(source / file.path, target, file)
            sync(target)
            if file.size >= _LINK_FROM_BYTES:
                progress(f"{self.link.name}: {file.path}, {file.size:,} bytes")
        for folder in {(temporary / file.path).parent for file in files}:
            sync(folder)
        return copies

    def _link_origins(self, files: _Listing, source: Path) -> dict[str, Path]:
        """What each file can be a hard link to; files that must be copied are absent."""
        if _linkable(files, source, self.folder):
            return {file.path: source / file.path for file in files if file.size >= _LINK_FROM_BYTES}
        kept = self._kept({file.sha256 for file in files})
        return {file.path: kept[file.sha256] for file in files if file.sha256 in kept}

    def _kept(self, wanted: set[str]) -> dict[str, Path]:
        """Undamaged files of the current version, by digest, of those that are wanted."""
        current = self.current() or self.link
        paths = {file.sha256: current / file.path for file in self.published() if file.sha256 in wanted}
        return {digest: path for digest, path in paths.items() if path.is_file() and sha256_once(path) == digest}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _linkable(files: Sequence[RepositoryFile], source: Path, folder: Path) -> bool:
    """Whether files of ``source`` can be hard links in ``folder``: found out, not guessed."""
    probe = folder / temporary_name()
    try:
        os.link(source / files[0].path, probe)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    probe.unlink()
    return True


def _copy(source: Path, target: Path, file: RepositoryFile) -> None:
    with source.open("rb") as reader, DigestWriter(target) as writer:
        shutil.copyfileobj(reader, writer, _BLOCK)
    if (digest := writer.hexdigest()) != file.sha256:
        raise _changed(source, f"sha256 {digest}, was {file.sha256}")


def _changed(source: Path, found: str) -> HubConflict:
    return HubConflict(
        f"{source} changed while it was published",
        found=found,
        remedy="publish again when nothing else writes to that folder; readers still see the version before",
    )
