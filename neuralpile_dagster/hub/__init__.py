"""Hubs: places that hold published datasets, each a folder of files with a version.

What every hub can do is here; the one in a folder is in `local`, the Hugging Face Hub in `huggingface`. What such a
folder of files holds belongs in `publish`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.files import TEMPORARY_PREFIX, sha256_once
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.settings import Settings


@dataclass(frozen=True)
class RepositoryFile:
    """One file of a published dataset: path inside the repository, bytes, sha256 (hex)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Publication:
    """What publishing did.

    ``changed`` is false when the repository already held exactly these files;
    ``bytes_sent`` counts the bytes of file content that had to be copied or uploaded.
    ``url`` is where a person looks at it.
    """

    repository: str
    version: str
    url: str
    changed: bool
    files: tuple[RepositoryFile, ...]
    bytes_sent: int


class Hub(Protocol):
    """Where datasets are published. Implementations: `local.LocalHub`, `huggingface.HuggingFaceHub`."""

    def require_credentials(self) -> None:
        """Raise `HubError` where it is known without asking a server that publishing would be refused."""
        ...

    def publish(self, name: str, folder: Path, progress: Progress = print) -> Publication:
        """Make repository ``<namespace>/<name>`` hold exactly the files under ``folder``.

        Atomic for readers: they see the old version or the new one. Safe to call
        again after any failure. Raises `HubError`, `HubUnavailable`, `HubConflict`.
        """
        ...

    def files(self, name: str) -> tuple[RepositoryFile, ...]:
        """The files of the repository's current version, in path order; empty when there is none."""
        ...

    def open(self, name: str, path: str) -> BinaryIO:
        """Open one file of the current version for seekable reading; the caller closes it."""
        ...

    def page(self, name: str) -> str | None:
        """Web page of a repository, for links on cards; None where a hub has none."""
        ...

    def path(self, name: str) -> Path | str:
        """What to give to `datasets.load_dataset`."""
        ...


def open_hub(settings: Settings) -> Hub:
    """The instance's hub: a folder ``hub`` in its home, or the Hugging Face Hub."""
    if settings.hub == "hf":
        from neuralpile_dagster.hub.huggingface import HuggingFaceHub

        return HuggingFaceHub.from_environment(settings.namespace)
    from neuralpile_dagster.hub.local import LocalHub

    return LocalHub(settings.home / "hub", settings.namespace)


# The Hugging Face Hub's rule (huggingface_hub.utils.validate_repo_id), so that every name works on every hub.
_NAME = re.compile(r"^(?!.*(--|\.\.))[A-Za-z0-9]([A-Za-z0-9._-]{0,94}[A-Za-z0-9])?$")


def check_repository_name(name: str) -> str:
    """Return ``name`` (without namespace); raises `HubError` when some hub would refuse it."""
    if not _NAME.match(name) or name.endswith(".git"):
        raise HubError(
            f"{name!r} is not a valid repository name",
            expected="at most 96 letters, digits and ._- , beginning and ending with a letter or digit, "
            "without '--', '..' or a final '.git'",
            remedy="rename the dataset in catalog.yaml, or set NEURALPILE_NAMESPACE to another name",
        )
    return name


_FRONT_MATTER = re.compile(r"---\n(.*?)^---$", re.DOTALL | re.MULTILINE)


def card_metadata(card: str) -> dict[str, Any]:
    """The YAML block at the top of a README; empty when there is none. Raises `yaml.YAMLError`."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time, where PyYAML was built with libyaml
    block = _FRONT_MATTER.match(card)
    content = yaml.load(block[1], loader) if block else None
    return content if isinstance(content, dict) else {}


def list_folder(folder: Path) -> tuple[RepositoryFile, ...]:
    """Every file below ``folder`` with its size and sha256, in path order.

    Raises `HubError` when there is none. Files still being written are not listed.
    """
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(TEMPORARY_PREFIX))
    paths = sorted(path.relative_to(folder).as_posix() for path in found)
    if not paths:
        raise HubError(
            f"{folder} has nothing to publish",
            found="no files" if folder.is_dir() else "no such folder",
            remedy="materialize the asset that makes the folder, then publish again",
        )

    def describe(path: str) -> RepositoryFile:
        return RepositoryFile(path=path, size=(folder / path).stat().st_size, sha256=sha256_once(folder / path))

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:  # hashing releases the GIL
        return tuple(pool.map(describe, paths))


def version_digest(files: Iterable[RepositoryFile]) -> str:
    """Sixteen hex digits that are equal for two folders exactly when they hold the same files.

    The name of a version on every hub: it depends on paths and contents only,
    so the same folder published twice, or to two hubs, is the same version.
    """
    listing = "".join(f"{file.path}\0{file.size}\0{file.sha256}\n" for file in sorted(files, key=lambda f: f.path))
    return hashlib.sha256(listing.encode()).hexdigest()[:16]
