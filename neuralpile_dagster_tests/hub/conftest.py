"""Fixtures of the hub's tests: `datasets` without network and without the user's cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster.records import CountsRecord
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster_tests.fixtures.sessions import KEYS, put_session


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`datasets.load_dataset` with a cache of this test, offline."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()

    def load_dataset(path: Path | str, *args: Any, **options: Any) -> Any:
        if not options.get("streaming"):
            options.setdefault("cache_dir", str(tmp_path / "datasets-cache"))
        return datasets.load_dataset(str(path), *args, **options)

    return load_dataset


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


@pytest.fixture
def records(store: LocalStore) -> dict[str, CountsRecord]:
    """Three sessions in the store."""
    return {key: put_session(store, key, subject="sub-2" if key == "s3" else "sub-1") for key in KEYS}
