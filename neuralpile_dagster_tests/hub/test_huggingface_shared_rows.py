"""On a Xet store the rows of a pile are those that its components brought there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neuralpile_dagster.tables.copying.copy import RowRef, copy_rows
from neuralpile_dagster.tables.rows import RowWriter
from neuralpile_dagster.tables.schemas import PILE_SCHEMA, ROW_SCHEMA
from neuralpile_dagster_tests.fixtures.huggingface import CARD, contents, hub_for, published, quiet
from neuralpile_dagster_tests.servers.hf_hub import HubServer


def test_a_shuffled_pile_sends_a_small_part_of_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    rng = np.random.default_rng(0)
    stored = tmp_path / "session.parquet"
    with RowWriter(stored) as writer:
        for k in range(8):  # bytes that no codec makes smaller: rows of ~1 MB, like real ones
            writer.write(rng.integers(0, 256, (100, 10_000), np.uint8), "sub-1", "ses-1", f"segment_{k}")
    component, pile = tmp_path / "component", tmp_path / "pile"
    for folder in (component, pile):
        folder.mkdir()
        (folder / "README.md").write_text(CARD)

    def open_session(name: str) -> pa.NativeFile:
        return pa.OSFile(str(stored))

    copy_rows([RowRef("s", k) for k in range(8)], open_session, component / "train-0.parquet", ROW_SCHEMA)
    shuffled = [RowRef("s", int(k), "component") for k in rng.permutation(8)]
    copy_rows(shuffled, open_session, pile / "train-0.parquet", PILE_SCHEMA)
    with HubServer(tmp_path / "server", xet=True) as server:
        hub_for(server).publish("component", component, quiet)
        first = server.received["xorb"]
        hub_for(server).publish("pile", pile, quiet)
        assert published(server, "lab/pile") == contents(pile)
        assert first > 8_000_000
        assert server.received["xorb"] - first < 0.05 * (pile / "train-0.parquet").stat().st_size
