"""What the tests of publishing to the Hugging Face Hub share."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from neuralpile_dagster.hub.huggingface.hub import HuggingFaceHub
from neuralpile_dagster.net.retry import RetryPolicy
from neuralpile_dagster_tests.servers.hf_hub import HubServer

QUICK = RetryPolicy(
    attempts=3,
    backoff_s=0.01,
    backoff_max_s=0.05,
    retry_after_max_s=2.0,
    connect_timeout_s=2.0,
    read_timeout_s=0.4,
    slowest_bytes_per_s=200_000.0,
)
CARD = "---\nlicense: cc-by-4.0\n---\nA component.\n"


def hub_for(server: HubServer, **settings: Any) -> HuggingFaceHub:
    """The real client's hub, impatient."""
    return HuggingFaceHub("lab", server.url, settings.pop("token", server.token), **{"policy": QUICK, **settings})


def folder_of(path: Path, shards: int, seed: int = 0, size: int = 20_000, card: str = CARD) -> Path:
    """A folder laid out like a dataset; its shards hold random bytes, which the Hub does not look into."""
    (path / "data").mkdir(parents=True, exist_ok=True)
    (path / "README.md").write_text(card)
    for k in range(shards):
        content = random.Random(f"{seed} {k}").randbytes(size)
        (path / "data" / f"train-{k:05d}-{seed:08x}.parquet").write_bytes(content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published(server: HubServer, name: str = "lab/x", revision: str = "main") -> dict[str, bytes]:
    """Every file that a reader of a repository sees, but the one that the Hub makes itself."""
    tree = server.tree(name, revision)
    return {path: server.content(name, path, revision) for path in tree if path != ".gitattributes"}


def quiet(line: str) -> None:
    """Progress that nobody reads."""
