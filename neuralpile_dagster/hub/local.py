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

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from neuralpile_dagster.errors import HubConflict, HubError
from neuralpile_dagster.files import explained
from neuralpile_dagster.hub.contents import check_repository_name, list_folder, version_digest
from neuralpile_dagster.hub.model import Publication, RepositoryFile
from neuralpile_dagster.hub.versions import Versions
from neuralpile_dagster.progress import Progress

_ATTEMPTS = 5


class LocalHub:
    """A `neuralpile_dagster.hub.model.Hub` in the folder ``root``.

    Reading methods also take ``namespace/name``, for repositories of others in the same folder.
    """

    def __init__(self, root: Path, namespace: str) -> None:
        self.root = root
        self.namespace = check_repository_name(namespace)

    def path(self, name: str) -> Path:
        """What to give to `datasets.load_dataset`; raises `HubError` for an impossible name."""
        namespace, slash, short = name.rpartition("/")
        return self.root / check_repository_name(namespace if slash else self.namespace) / check_repository_name(short)

    def publish(self, name: str, folder: Path, progress: Progress = print) -> Publication:
        """See `Hub.publish`. Waits while another process publishes to the same repository.

        Raises `DiskFull` before anything is copied to a disk that is too small,
        and `HubError` when the place is taken by something that is not ours.
        """
        started = time.monotonic()
        versions = Versions(self.root / self.namespace / check_repository_name(name))
        with explained(versions.link), versions.locked(progress):
            progress(f"{name}: reading {folder}")
            files = list_folder(folder)
            version = version_digest(files)
            changed = not versions.holds(files)
            versions.remove_others()
            copied = versions.add(version, files, folder, progress) if changed else 0
            versions.remove_others()
        progress(f"{name}: version {version} {'published at' if changed else 'was there already, at'} {versions.link}")
        return Publication(
            repository=f"{self.namespace}/{name}",
            version=version,
            url=str(versions.link),
            changed=changed,
            files=files,
            bytes_sent=copied,
            seconds=time.monotonic() - started,
        )

    def files(self, name: str) -> tuple[RepositoryFile, ...]:
        """See `Hub.files`. The files of a folder that somebody else put there are hashed now."""
        versions = Versions(self.path(name))
        for _ in range(_ATTEMPTS):
            current = versions.current()
            if current is None:
                return list_folder(versions.link) if versions.link.is_dir() else ()
            try:
                return versions.listing(current)
            except FileNotFoundError:
                if versions.current() == current:  # not replaced meanwhile, but a listing that is lost
                    return list_folder(current)
        raise _restless(versions.link)

    @contextmanager
    def open(self, name: str, path: str) -> Iterator[BinaryIO]:
        """See `Hub.open`. Raises `HubError` when the repository has no such file."""
        with self._open(self.path(name), path) as file:
            yield file

    def _open(self, link: Path, path: str) -> BinaryIO:
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

    def repositories(self) -> Iterator[str]:
        """See `Hub.repositories`; sorted."""
        folder = self.root / self.namespace
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir() and not path.name.startswith("."):
                yield path.name


def _restless(link: Path) -> HubConflict:
    return HubConflict(f"{link} is replaced again and again", remedy="read it when nobody publishes")
