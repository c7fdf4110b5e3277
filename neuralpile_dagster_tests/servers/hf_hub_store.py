"""What the test hub keeps: repositories with commits, refs and pull requests; contents in files by digest."""

from __future__ import annotations

import hashlib
import itertools
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

ATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"


class Refused(Exception):
    """The hub says no: a status, a text, and the Hub's own error code."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Entry:
    """One file of a tree. ``oid`` is the git blob's sha1; ``lfs`` the content's sha256 where it is a pointer."""

    size: int
    oid: str
    lfs: str | None = None
    pointer_size: int = 0

    @property
    def etag(self) -> str:
        """What the Hub answers as ETag."""
        return self.lfs or self.oid


@dataclass(frozen=True)
class Commit:
    """A complete tree; nothing else is ever readable."""

    oid: str
    parent: str | None
    title: str
    tree: dict[str, Entry]


@dataclass
class PullRequest:
    """One pull request; ``base`` is the commit that it started from.

    "Pull Requests created programmatically will be in draft status" (huggingface_hub, `HfApi.create_pull_request`);
    a draft "cannot be merged" (huggingface.co/docs/hub/repositories-pull-requests-discussions).
    """

    number: int
    title: str
    base: str
    status: str = "draft"
    merged_as: str | None = None


@dataclass
class Repository:
    """One dataset repository."""

    name: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, PullRequest] = field(default_factory=dict)

    def commit_at(self, revision: str) -> Commit:
        """The commit of a branch, tag or commit id."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def history(self) -> list[Commit]:
        """The commits of main, newest first."""
        found, oid = [], self.branches["main"]
        while oid is not None:
            found.append(self.commits[oid])
            oid = found[-1].parent  # type: ignore[assignment]
        return found


def git_blob_oid(content: bytes) -> str:
    """Git's id of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class HubStore:
    """All repositories, and the contents that they point to, below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repositories: dict[str, Repository] = {}
        self.lock = threading.RLock()
        self._numbers = itertools.count(1)
        for folder in ("blobs", "lfs", "uploads"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def content(self, entry: Entry) -> Path:
        """Where an entry's content lies."""
        return self.root / ("lfs" if entry.lfs else "blobs") / entry.etag

    def lfs_path(self, sha256: str) -> Path:
        """Where a large file's content lies, or would."""
        return self.root / "lfs" / sha256

    def add_lfs(self, content: bytes, sha256: str) -> None:
        """Keep a large file's content; refused when its digest is another."""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise Refused(400, f"content is not that of {sha256}")
        aside = self.root / "uploads" / f"{sha256}-{next(self._numbers)}"
        aside.write_bytes(content)
        aside.replace(self.lfs_path(sha256))

    def add_blob(self, content: bytes) -> Entry:
        """Keep a small file's content."""
        oid = git_blob_oid(content)
        (self.root / "blobs" / oid).write_bytes(content)
        return Entry(len(content), oid)

    def lfs_entry(self, sha256: str) -> Entry:
        """An entry that points to an uploaded large file."""
        path = self.lfs_path(sha256)
        if not path.is_file():
            raise Refused(400, f"LFS pointer points to a file that does not exist: {sha256}")
        size = path.stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return Entry(size, git_blob_oid(pointer.encode()), sha256, len(pointer))

    def repository(self, name: str) -> Repository:
        """A repository by ``owner/name``."""
        if name not in self.repositories:
            raise Refused(404, "Repository not found", "RepoNotFound")
        return self.repositories[name]

    def create(self, name: str, private: bool) -> Repository:
        """A new repository with the one commit that the Hub makes."""
        with self.lock:
            if name in self.repositories:
                raise Refused(409, "You already created this dataset repo")
            repository = self.repositories[name] = Repository(name, private)
            self._add_commit(repository, "main", "initial commit", {".gitattributes": self.add_blob(ATTRIBUTES)})
            return repository

    def _add_commit(self, repository: Repository, branch: str, title: str, tree: dict[str, Entry]) -> Commit:
        parent = repository.branches.get(branch)
        text = f"{next(self._numbers)} {parent} {title} {sorted(tree.items())}"
        commit = Commit(hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), parent, title, tree)
        repository.commits[commit.oid] = commit
        repository.branches[branch] = commit.oid
        return commit

    def commit(
        self, repository: Repository, branch: str, title: str, parent: str | None, changes: dict[str, Entry | None]
    ) -> Commit:
        """Add one commit, all or nothing; a stale ``parent`` is refused with 412."""
        with self.lock:
            head = repository.commit_at(branch)
            if parent is not None and parent != head.oid:
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            return self._add_commit(repository, branch, title, apply_changes(head.tree, changes))

    def open_pull(self, repository: Repository, title: str) -> PullRequest:
        """Create a pull request without changes, from main."""
        with self.lock:
            head = repository.branches["main"]
            pull = PullRequest(len(repository.pulls) + 1, title, head)
            repository.pulls[pull.number] = pull
            repository.branches[f"refs/pr/{pull.number}"] = head
            return pull

    def set_status(self, repository: Repository, number: int, status: str) -> PullRequest:
        """Publish, close or open again a pull request that is not merged."""
        with self.lock:
            pull = repository.pulls[number]
            if status not in ("open", "closed") or pull.status in ("merged", status):
                raise Refused(400, f"pull request is {pull.status} and cannot become {status}")
            pull.status = status
            return pull

    def merge(self, repository: Repository, number: int) -> Commit:
        """Merge a pull request into main as one commit; refused when both changed the same file."""
        with self.lock:
            pull = repository.pulls[number]
            if pull.status != "open":
                raise Refused(400, f"pull request is {pull.status}")
            base = repository.commits[pull.base].tree
            theirs = repository.commit_at(f"refs/pr/{number}").tree
            ours = repository.commit_at("main").tree
            paths = {path for path in base.keys() | theirs.keys() if base.get(path) != theirs.get(path)}
            if any(ours.get(path) not in (base.get(path), theirs.get(path)) for path in paths):
                raise Refused(409, "pull request has conflicts")
            tree = {path: entry for path, entry in ours.items() if path not in paths}
            tree |= {path: theirs[path] for path in paths if path in theirs}
            commit = self._add_commit(repository, "main", pull.title, tree)
            repository.pulls[number] = replace(pull, status="merged", merged_as=commit.oid)
            return commit


def apply_changes(tree: dict[str, Entry], changes: dict[str, Entry | None]) -> dict[str, Entry]:
    """The tree with files added, replaced or (None) removed."""
    result = dict(tree)
    for path, entry in changes.items():
        if entry is not None:
            result[path] = entry
        elif result.pop(path, None) is None:
            raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    return result
