"""Keys that a store refuses, whoever made them up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.store import check_key, open_store

HOSTILE_KEYS = {
    "empty": "",
    "parent": "../outside",
    "parent inside": "a/../../outside",
    "dots in a name": "a/b..c",
    "here": "a/./b",
    "absolute": "/etc/passwd",
    "folder": "a/b/",
    "empty part": "a//b",
    "drive letter": "C:/windows",
    "drive letter without slash": "C:x",
    "backslash": "a\\..\\b",
    "network path": "\\\\host\\share",
    "newline": "a\nb",
    "newline at the end": "a/b\n",
    "NUL": "a\0b",
    "escape": "a\x1b[2Jb",
    "delete": "a\x7f",
    "hidden": "a/.writing-b",
    "option": "-rf",
    "space": "a b",
    "home": "~/x",
    "variable": "$HOME/x",
    "other script": "ａ/b",
    "right to left": "a\u202eb",
    "URL": "https://example.org/x",
    "percent": "%2e%2e/x",
    "long name": "a" * 241,
    "long key": "/".join(["abcdefghi"] * 61),
    "very long key": "a/" * 5_000_000 + "a",
}


@pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS)
def test_keys_that_could_leave_the_store_are_refused_everywhere(key: str, tmp_path: Path):
    inside = tmp_path / "inside"
    (tmp_path / "outside").write_text("not yours")
    store = open_store(str(inside))
    writing = store.writing
    for use in (store.open, store.read, store.size, store.delete, store.uri, lambda key: list(store.keys(key))):
        with pytest.raises(StoreError, match="is not a valid key of the store") as caught:
            use(key)
        assert len(str(caught.value)) < 2_000
    with pytest.raises(StoreError, match="is not a valid key of the store"), writing(key):
        pass
    assert sorted(tmp_path.iterdir()) == [tmp_path / "outside"]


@given(st.text(max_size=30))
def test_an_accepted_key_stays_below_the_store(text: str):
    try:
        check_key(text)
    except StoreError:
        return
    root = Path("/store")
    assert Path(os.path.normpath(root / text)).relative_to(root).as_posix() == text
