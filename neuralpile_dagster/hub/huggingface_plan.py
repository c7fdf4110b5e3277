"""What publishing a folder has to change in a repository, and nothing more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from neuralpile_dagster.hub.contents import version_digest
from neuralpile_dagster.hub.model import RepositoryFile

KEPT = (".gitattributes",)
"""Files that the Hub itself adds to a repository: neither published, nor listed, nor deleted."""


@dataclass(frozen=True)
class Plan:
    """What to do on top of commit ``head``.

    ``add`` are files to send, ``delete`` paths, ``copy`` pairs of a path that
    ``head`` has and a new path with the same content (a shard under a new number).
    """

    head: str
    add: tuple[RepositoryFile, ...]
    copy: tuple[tuple[str, str], ...]
    delete: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """Whether the repository already holds exactly the wanted files."""
        return not (self.add or self.copy or self.delete)


def remote_files(api: HfApi, repository: str, revision: str) -> dict[str, RepoFile]:
    """The files of a revision, by path."""
    rows = api.list_repo_tree(repository, recursive=True, revision=revision, repo_type="dataset")
    return {row.path: row for row in rows if isinstance(row, RepoFile) and row.path not in KEPT}


def make_plan(folder: Path, files: Iterable[RepositoryFile], head: str, remote: dict[str, RepoFile]) -> Plan:
    """Compare local ``files`` (below ``folder``) with the remote ones by digest, sha256 or git's own."""
    wanted = {file.path: file for file in files}
    there = {row.lfs.sha256: path for path, row in remote.items() if row.lfs is not None}
    differing = [file for path, file in wanted.items() if not _same(folder, file, remote.get(path))]
    return Plan(
        head,
        add=tuple(file for file in differing if file.sha256 not in there),
        copy=tuple((there[file.sha256], file.path) for file in differing if file.sha256 in there),
        delete=tuple(sorted(remote.keys() - wanted.keys())),
    )


def _same(folder: Path, local: RepositoryFile, remote: RepoFile | None) -> bool:
    if remote is None or remote.size != local.size:
        return False
    if remote.lfs is not None:
        return remote.lfs.sha256 == local.sha256
    return remote.blob_id == git_blob_id((folder / local.path).read_bytes())


def git_blob_id(content: bytes) -> str:
    """Git's id of a file's content (hex sha1), which the Hub lists for files that are not in large storage."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def version_tag(files: Iterable[RepositoryFile], tags: Iterable[str]) -> str:
    """The name ``v<date>-<digest>`` of a version: the tag that its digest has already, or today's."""
    digest = version_digest(files)
    for tag in sorted(tags):
        if tag.startswith("v") and tag.endswith(f"-{digest}"):
            return tag
    return f"v{datetime.now(UTC):%Y%m%d}-{digest}"
