"""What a repository is, whatever hub holds it: a name, and files with digests that together make a version."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.files import TEMPORARY_PREFIX, sha256_of
from neuralpile_dagster.hub.model import RepositoryFile

# The Hugging Face Hub's rule (huggingface_hub.utils.validate_repo_id), so that every name works on every hub.
_NAME = re.compile(r"^(?!.*(--|\.\.))[A-Za-z0-9]([A-Za-z0-9._-]{0,94}[A-Za-z0-9])?$")


def check_repository_name(name: str) -> str:
    """Return ``name`` (without namespace); raises `HubError` when some hub would refuse it."""
    if not _NAME.match(name) or name.endswith(".git"):
        raise HubError(
            f"{name!r} cannot be the name of a repository",
            expected="at most 96 letters, digits and ._- , beginning and ending with a letter or digit, "
            "without '--', '..' or a final '.git'",
            remedy="rename the dataset in catalog.yaml, or set NEURALPILE_NAMESPACE to another name",
        )
    return name


def list_folder(folder: Path) -> tuple[RepositoryFile, ...]:
    """Every file below ``folder`` with its size and sha256, in path order.

    Raises `HubError` when there is none. Files still being written are not listed.
    """
    paths = sorted(path.relative_to(folder).as_posix() for path in _walk(folder))
    if not paths:
        raise HubError(
            f"{folder} has nothing to publish",
            found="no files" if folder.is_dir() else "no such folder",
            remedy="materialize the asset that makes the folder, then publish again",
        )
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:  # hashing releases the GIL
        return tuple(pool.map(lambda path: describe(folder, path), paths))


def _walk(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(TEMPORARY_PREFIX))


def describe(folder: Path, path: str) -> RepositoryFile:
    """One file of a folder, its digest read from the disk."""
    return RepositoryFile(path=path, size=(folder / path).stat().st_size, sha256=sha256_of(folder / path))


def version_digest(files: Iterable[RepositoryFile]) -> str:
    """Sixteen hex digits that are equal for two folders exactly when they hold the same files.

    The name of a version on every hub: it depends on paths and contents only,
    so the same folder published twice, or to two hubs, is the same version.
    """
    listing = "".join(f"{file.path}\0{file.size}\0{file.sha256}\n" for file in sorted(files, key=lambda f: f.path))
    return hashlib.sha256(listing.encode()).hexdigest()[:16]
