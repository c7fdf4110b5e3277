"""Fixtures that any test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings and archive listings; skips where it is absent."""
    folder = Path(os.environ.get("NEURALPILE_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"shared data are not at {folder} (set NEURALPILE_SHARED)")
    return folder
