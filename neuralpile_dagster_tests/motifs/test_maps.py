"""Maps from every motif to its token: the same as the rule gives, in files that are mapped into memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.errors import StoreError, TableError
from neuralpile_dagster.motifs.counts import bucket_of_keys, keys_of
from neuralpile_dagster.motifs.records import MAX_KEY_COUNT, MotifShape
from neuralpile_dagster.motifs.token_files import MapRecord, Maps, build_map
from neuralpile_dagster.motifs.tokens import Tokenizer
from neuralpile_dagster.motifs.vocabulary import Vocabulary
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import LocalStore, open_store
from neuralpile_dagster_tests.fixtures.tokens import (
    as_patches,
    bursty_counts,
    counted,
    put_bucket,
    put_buckets,
    put_maps,
    put_vocabulary,
)
from neuralpile_dagster_tests.servers.s3 import S3Server

SHAPE, WIDE = MotifShape(1, 6), MotifShape(2, 12)


class Made(NamedTuple):
    """Maps of the motifs of two rows."""

    motifs: Counter[bytes]
    store: LocalStore
    vocabulary: Vocabulary
    buckets: dict[str, StoredFile]
    records: list[MapRecord]
    maps: Maps


def made(root: Path, shape: MotifShape) -> Made:
    motifs, store = counted([bursty_counts(30, 601, seed) for seed in range(2)], shape), LocalStore(root)
    _, vocabulary = put_vocabulary(store, motifs, shape, 60)
    buckets = put_buckets(store, motifs, shape)
    return Made(motifs, store, vocabulary, buckets, *put_maps(store, buckets, vocabulary))


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("keyed"), SHAPE)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("wide"), WIDE)


def fullest(of: Made) -> str:
    """The bucket with most motifs."""
    return max(of.records, key=lambda record: record.motifs).bucket


@pytest.mark.parametrize("kind", ["keyed", "wide"])
def test_every_motif_has_the_token_that_the_rule_gives(kind: str, request: pytest.FixtureRequest) -> None:
    of: Made = request.getfixturevalue(kind)
    shape = of.vocabulary.shape
    patches = as_patches([motif for motif in of.motifs if any(motif)], shape)
    with_key = (patches <= MAX_KEY_COUNT).all(axis=1) & shape.has_keys
    assert with_key.any() == shape.has_keys
    assert not with_key.all()
    found = np.empty(len(patches), np.int64)
    found[~with_key] = of.maps.of_patches(patches[~with_key], -1)
    if shape.has_keys:
        found[with_key] = of.maps.of_keys(keys_of(patches[with_key]), -1)
    assert found.tolist() == of.vocabulary.tokens_of(patches).tolist()


@pytest.mark.parametrize("kind", ["keyed", "wide"])
def test_a_row_has_the_same_tokens_with_maps_as_without(kind: str, request: pytest.FixtureRequest) -> None:
    of: Made = request.getfixturevalue(kind)
    for counts in (bursty_counts(30, 601), bursty_counts(30, 250, seed=9)):
        with_maps, without = (Tokenizer(of.vocabulary, maps).encode_row(counts) for maps in (of.maps, None))
        np.testing.assert_array_equal(with_maps[0], without[0])
        assert with_maps[1] == without[1] < with_maps[0].size
    with pytest.raises(ValueError, match="another vocabulary"):
        Tokenizer(Tokenizer.of([[0] * 6], (1, 6)).vocabulary, of.maps)


def test_a_motif_of_no_map_is_missing(keyed: Made) -> None:
    others = np.random.default_rng(0).integers(9, 16, (300, 6)).astype(np.uint8)
    assert keyed.maps.of_keys(keys_of(others), 77).tolist() == [77] * 300
    assert keyed.maps.of_patches(others + np.uint8(99), 77).tolist() == [77] * 300


def test_records_count_what_the_vocabulary_loses(keyed: Made) -> None:
    kept = {patch.tobytes() for patch in keyed.vocabulary.patches}
    heard = {motif: often for motif, often in keyed.motifs.items() if any(motif)}
    tail = {motif: often for motif, often in heard.items() if motif not in kept}
    patches, often = as_patches(list(tail), SHAPE).astype(int), np.array(list(tail.values()))
    tokens = keyed.vocabulary.tokens_of(patches.astype(np.uint8))
    after = keyed.vocabulary.patches[tokens].astype(int)
    expected = {
        "motifs": len(heard),
        "tail_motifs": len(tail),
        "patches": sum(heard.values()),
        "tail_patches": sum(tail.values()),
        "silenced_patches": int(often[tokens == keyed.vocabulary.document.silent_id].sum()),
        "spikes": sum(sum(motif) * n for motif, n in heard.items()),
        "tail_difference": int((np.abs(patches - after).sum(axis=1) * often).sum()),
    }
    expected["spikes_decoded"] = expected["spikes"] + int(((after - patches).sum(axis=1) * often).sum())
    assert {name: sum(getattr(record, name) for record in keyed.records) for name in expected} == expected
    assert expected["tail_motifs"] > 0 < expected["tail_difference"]


def test_the_same_motifs_give_the_same_bytes_whatever_the_threads(keyed: Made) -> None:
    bucket = fullest(keyed)
    again = build_map(keyed.store, "again", bucket, keyed.buckets[bucket], keyed.vocabulary, inputs="b" * 64, threads=3)
    before = next(record for record in keyed.records if record.bucket == bucket)
    assert [file.sha256 for file in again.files] == [file.sha256 for file in before.files]


def test_a_file_is_mapped_and_any_arrow_reader_reads_it(keyed: Made) -> None:
    record = keyed.records[int(fullest(keyed))]
    before = pa.total_allocated_bytes()
    table = pa.ipc.open_file(pa.memory_map(keyed.store.uri(record.file.key))).read_all()
    assert pa.total_allocated_bytes() - before < 1_000
    assert table.column_names == ["key", "id"]
    assert len(table) > 1
    assert table["key"].to_pylist() == sorted(table["key"].to_pylist())
    assert table.schema.metadata == {
        b"vocabulary": keyed.vocabulary.document.vocabulary_sha256.encode(),
        b"bucket": record.bucket.encode(),
    }


def test_files_that_are_not_a_bucket_of_motifs_are_refused(keyed: Made) -> None:
    *_, other, bucket = (record.bucket for record in sorted(keyed.records, key=lambda record: record.motifs))
    whole, another = (pq.read_table(keyed.store.uri(keyed.buckets[name].key)) for name in (bucket, other))
    with_key = whole.filter(pc.is_valid(whole["key"]))
    neither = with_key.set_column(1, "key", pa.nulls(len(with_key), pa.uint64()))
    cases = {
        "not ascending": with_key[::-1],
        "damaged, or holds motifs of another shape": neither,
        f"of another bucket than {bucket}": another,
    }
    for said, table in cases.items():
        with pytest.raises(TableError, match=said):
            build_map(
                keyed.store, "bad", bucket, put_bucket(keyed.store, table, "b.parquet"), keyed.vocabulary, inputs=""
            )
    assert not (keyed.store.root / "bad").exists()


def test_maps_are_of_all_buckets_and_one_vocabulary(keyed: Made) -> None:
    with pytest.raises(ValueError, match="63 buckets of 1 vocabularies; expected 64 of one"):
        Maps(keyed.store, keyed.records[1:])
    other = keyed.records[0].model_copy(update={"vocabulary_sha256": "another"})
    with pytest.raises(ValueError, match="64 buckets of 2 vocabularies"):
        Maps(keyed.store, [other, *keyed.records[1:]])


def test_a_damaged_map_is_not_used(keyed: Made, tmp_path: Path) -> None:
    copy = LocalStore(tmp_path)
    with copy.writing(keyed.records[0].file.key) as path:
        path.write_bytes(Path(keyed.store.uri(keyed.records[0].file.key)).read_bytes()[:-1] + b"?")
    keys = np.arange(1, 1000, dtype=np.uint64)
    with pytest.raises(StoreError, match="damaged"):
        Maps(copy, keyed.records).of_keys(keys[bucket_of_keys(keys) == 0], 0)


def test_maps_on_s3_are_copied_when_they_are_needed(keyed: Made, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.use(monkeypatch)
    remote, record = open_store(f"s3://{s3.new_bucket()}"), keyed.records[int(fullest(keyed))]
    for file in record.files:
        with remote.writing(file.key) as path:
            path.write_bytes(Path(keyed.store.uri(file.key)).read_bytes())
    known = pa.ipc.open_file(pa.memory_map(keyed.store.uri(record.file.key))).read_all()
    keys = known["key"].to_numpy()
    assert Maps(remote, keyed.records).of_keys(keys, -1).tolist() == known["id"].to_pylist()


def test_an_empty_bucket_has_a_map(keyed: Made) -> None:
    schema = pq.read_schema(keyed.store.uri(keyed.buckets["00"].key))
    file = put_bucket(keyed.store, schema.empty_table(), "empty.parquet")
    record = build_map(keyed.store, "empty", "00", file, keyed.vocabulary, inputs="")
    assert (record.motifs, record.spikes) == (0, 0)
    maps = Maps(keyed.store, [record, *keyed.records[1:]])
    keys = np.arange(1, 1000, dtype=np.uint64)
    assert set(maps.of_keys(keys[bucket_of_keys(keys) == 0], 99)) == {99}
