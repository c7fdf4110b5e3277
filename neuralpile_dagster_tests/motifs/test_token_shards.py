"""Shards of tokens: row by row those of the pile's shard, whole or not there, readable by any Parquet reader."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.errors import InvalidArray, StoreError, TableError
from neuralpile_dagster.files import sha256_of
from neuralpile_dagster.motifs import Tokenizer, decode, encode
from neuralpile_dagster.motifs.records import MotifShape
from neuralpile_dagster.motifs.token_files import TokenShardRecord, build_token_shard
from neuralpile_dagster.publish.motif_table import OfPile, bin_width
from neuralpile_dagster.publish.tokens import write_tokens
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster.tables.rows import Row
from neuralpile_dagster.tables.schemas import PILE_SCHEMA
from neuralpile_dagster_tests.fixtures.row_files import write_foreign, write_rows
from neuralpile_dagster_tests.fixtures.tokens import as_patches, bursty_counts, counted, put_vocabulary

SIZES = [(5, 601), (1, 1), (3, 15), (7, 44), (4, 0), (2, 2_000)]
ROWS = [
    Row(bursty_counts(n_units, n_bins, k), f"sub-{k}", f"ses-{k}", f"segment_{k}", f"lab-{k % 2}")
    for k, (n_units, n_bins) in enumerate(SIZES)
]


def tokenizer_for(shape: MotifShape, size: int = 30) -> Tokenizer:
    motifs = counted([row.counts for row in ROWS], shape)
    return Tokenizer.of(
        as_patches([motif for motif, _ in motifs.most_common(size)], shape), (shape.n_units, shape.n_bins)
    )


def stored(path: Path, root: Path) -> StoredFile:
    return StoredFile(key=path.relative_to(root).as_posix(), size=path.stat().st_size, sha256=sha256_of(path))


def build(root: Path, tokenizer: Tokenizer, name: str = "train-00000", rows: Sequence[Row] = ROWS) -> TokenShardRecord:
    shard = stored(write_rows(root / "shards/train-00000.parquet", rows, PILE_SCHEMA), root)
    return build_token_shard(LocalStore(root), "tokens", name, shard, tokenizer, inputs="c" * 64)


def test_every_row_is_that_of_the_shard_and_a_row_group(tmp_path: Path) -> None:
    tokenizer = tokenizer_for(MotifShape(1, 15))
    record = build(tmp_path, tokenizer)
    parquet = pq.ParquetFile(tmp_path / record.file.key)
    assert parquet.num_row_groups == len(ROWS) == record.rows
    assert {field.name: str(field.type) for field in parquet.schema_arrow} == {
        "tokens": "list<element: list<element: uint16>>",
        "n_bins": "int32",
        "subject_id": "string",
        "session_id": "string",
        "segment_id": "string",
        "source_dataset": "string",
    }
    n_exact = 0
    for row, found in zip(ROWS, parquet.read().to_pylist(), strict=True):
        tokens, exact = tokenizer.encode_row(row.counts)
        n_exact += exact
        assert found.pop("tokens") == tokens.tolist()
        ids = {name: getattr(row, name) for name in PILE_SCHEMA.names[1:]}
        assert found == {"n_bins": row.counts.shape[1], **ids}
    assert record.tokens == sum(n_units * -(-n_bins // 15) for n_units, n_bins in SIZES)
    assert 0 < n_exact == record.exact_tokens < record.tokens


def test_motifs_of_several_units_have_a_column_that_says_how_many(tmp_path: Path) -> None:
    tokenizer = tokenizer_for(MotifShape(2, 5), size=10_000)
    table = pq.read_table(tmp_path / build(tmp_path, tokenizer).file.key)
    assert table.column_names[:3] == ["tokens", "n_bins", "n_units"]
    for row, found in zip(ROWS, table.to_pylist(), strict=True):
        tokens = np.array(found["tokens"], np.uint16)
        back = decode(tokens, tokenizer, found["n_bins"], found["n_units"])
        np.testing.assert_array_equal(back, row.counts)


def test_other_readers_read_it(tmp_path: Path) -> None:
    tokenizer = tokenizer_for(MotifShape(1, 15))
    record = build(tmp_path, tokenizer)
    import duckdb
    import polars as pl

    expected, path = encode(ROWS[0].counts, tokenizer).tolist(), tmp_path / record.file.key
    assert pl.read_parquet(path)["tokens"][0].to_list() == expected
    assert duckdb.sql(f"select tokens from '{path}' limit 1").fetchall()[0][0] == expected


def test_the_same_rows_give_the_same_bytes_wherever_they_are_copied_from(tmp_path: Path) -> None:
    tokenizer = tokenizer_for(MotifShape(1, 15))
    record = build(tmp_path, tokenizer)
    assert build(tmp_path, tokenizer, "again").file.sha256 == record.file.sha256
    foreign = tmp_path / "foreign.parquet"
    write_foreign(foreign, ROWS, PILE_SCHEMA)
    other = build_token_shard(LocalStore(tmp_path), "other", "x", stored(foreign, tmp_path), tokenizer, inputs="")
    assert other.file.sha256 == record.file.sha256


def test_a_shard_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    tokenizer, store = tokenizer_for(MotifShape(1, 15)), LocalStore(tmp_path)
    path = write_rows(tmp_path / "shards/s.parquet", ROWS, PILE_SCHEMA)
    shard, content = stored(path, tmp_path), path.read_bytes()
    damaged = bytearray(content)
    last = pq.read_metadata(path).row_group(5).column(0)
    damaged[last.data_page_offset + 60] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(TableError, match="damaged"):
        build_token_shard(store, "tokens", "s", shard, tokenizer, inputs="")
    path.write_bytes(content[:-9])
    with pytest.raises(StoreError, match=f"{len(content) - 9:,} bytes"):
        build_token_shard(store, "tokens", "s", shard, tokenizer, inputs="")
    path.unlink()
    with pytest.raises(StoreError, match="no such file"):
        build_token_shard(store, "tokens", "s", shard, tokenizer, inputs="")
    assert list((tmp_path / "tokens").glob("*")) == []


def test_a_card_says_that_some_sessions_have_other_bins() -> None:
    one = OfPile("local/pile-3x6", "local/pile", "Pile", "plan", bin_width_s=0.02)
    assert bin_width(one) == "A bin is 20 ms."
    assert bin_width(replace(one, other_bin_widths_s=(1 / 60, 0.05))) == (
        "A bin is 20 ms. In some sessions it is 16.6667 ms or 50 ms: "
        "the pile's config `sessions` has the `bin_width_s` of each."
    )


def test_the_code_on_a_card_encodes_counts_in_the_bins_of_the_pile_where_the_instance_has_others(
    tmp_path: Path,
) -> None:
    shape, store = MotifShape(1, 15), LocalStore(tmp_path / "store")
    vocabulary, opened = put_vocabulary(store, counted([row.counts for row in ROWS], shape), shape, 30, 1 / 60)
    shard = build(tmp_path / "store", Tokenizer(opened), rows=ROWS[:4])
    of = OfPile("local/pile-1x15", "local/pile", "Pile", "plan", bin_width_s=0.02, other_bin_widths_s=(1 / 60,))
    write_tokens(tmp_path / "pile-1x15", store, of, {"train": [shard]}, vocabulary, [], motif_table="local/pile-motifs")
    code = re.findall(r"```python\n(.*?)```", (tmp_path / "pile-1x15" / "README.md").read_text(), re.DOTALL)[0]
    assert f"bin_width_s={1 / 60!r})" in code
    names: dict[str, np.ndarray] = {}
    exec(code.replace("hf://datasets/local", str(tmp_path)), names)
    assert names["tokens_of_mine"].shape == (3, 7)
    with pytest.raises(InvalidArray, match="bins of different widths"):
        exec(code.replace("hf://datasets/local", str(tmp_path)).replace(repr(1 / 60), "0.02"), {})


@pytest.mark.parametrize("size", [30, 10_000])
def test_the_card_of_motifs_of_several_units_has_code_that_runs(tmp_path: Path, size: int) -> None:
    shape, store = MotifShape(3, 6), LocalStore(tmp_path / "store")
    vocabulary, opened = put_vocabulary(store, counted([row.counts for row in ROWS], shape), shape, size)
    shard = build(tmp_path / "store", Tokenizer(opened), rows=ROWS[:4])
    of = OfPile("local/pile-3x6", "local/pile", "Pile", "plan", bin_width_s=0.005)
    write_tokens(tmp_path / "pile-3x6", store, of, {"train": [shard]}, vocabulary, [], motif_table="local/pile-motifs")
    card = (tmp_path / "pile-3x6" / "README.md").read_text()
    found = []
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        names: dict[str, np.ndarray] = {}
        exec(code.replace("hf://datasets/local", str(tmp_path)), names)
        found.append(names)
    np.testing.assert_array_equal(found[1]["decoded"], found[0]["counts"])
    assert found[1]["decoded"].shape == ROWS[0].counts.shape
    assert "# groups of 3 units x time steps" in card
    assert "A bin is 5 ms." in card
    assert "encode(mine, tokenizer, bin_width_s=0.005)" in card
    assert "null where it has more than 16 counts" in card
    assert ("Each other patch" in card) == (size == 30)
    assert ("All patches are motifs of the vocabulary" in card) == (size > 30)
