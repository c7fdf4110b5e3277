"""The vocabulary of a motif table and its document: sizes, ids, what is refused, and what a damaged one says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.errors import ConfigurationError, DocumentError, NewerDocument, StoreError, TableError
from neuralpile_dagster.files import sha256_of
from neuralpile_dagster.motifs.counts import patches_of
from neuralpile_dagster.motifs.records import MotifShape
from neuralpile_dagster.motifs.vocabulary import (
    build_vocabulary,
    load_vocabulary,
    read_vocabulary,
    require_size,
    write_vocabulary,
)
from neuralpile_dagster.records import StoredFile
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster_tests.fixtures.tokens import bursty_counts, counted, put_table, put_vocabulary

SHAPE = MotifShape(1, 5)


@pytest.fixture(scope="module")
def motifs() -> Counter[bytes]:
    return counted([bursty_counts(20, 503, seed) for seed in range(3)], SHAPE)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_size_counts_the_most_frequent_motifs_and_the_separator(store: LocalStore, motifs: Counter[bytes]) -> None:
    record, vocabulary = put_vocabulary(store, motifs, SHAPE, 40)
    expected = sorted(motifs, key=lambda motif: (-motifs[motif], motif))[:39]
    assert [patch.tobytes() for patch in vocabulary.patches] == expected
    assert vocabulary.frequency.tolist() == [motifs[motif] for motif in expected]
    assert (record.size, record.motifs, record.asked_size) == (40, 39, 40)
    assert record.coverage == pytest.approx(sum(vocabulary.frequency) / motifs.total())
    assert record.frequency == vocabulary.frequency.sum()


def test_the_document_states_the_bin_width_and_is_read_without_it(
    store: LocalStore, motifs: Counter[bytes], tmp_path: Path
) -> None:
    _, vocabulary = put_vocabulary(store, motifs, SHAPE, 40, bin_width_s=0.02)
    folder = tmp_path / "1x5/vocabulary"
    path = folder / "tokenizer.json"
    stated = json.loads(path.read_text())
    assert stated.pop("bin_width_s") == vocabulary.document.bin_width_s == 0.02
    path.write_text(json.dumps({**stated, "bin_width_s": -0.02}))
    with pytest.raises(DocumentError, match=r"tokenizer\.json is not a .*found: bin_width_s: Input should be"):
        load_vocabulary(folder)
    path.write_text(json.dumps(stated))
    of_before = load_vocabulary(folder)
    assert of_before.document.bin_width_s is None
    assert np.array_equal(of_before.patches, vocabulary.patches)


def test_its_files_are_plain_parquet_and_plain_json(store: LocalStore, motifs: Counter[bytes], tmp_path: Path) -> None:
    record, _ = put_vocabulary(store, motifs, SHAPE, 101)
    table = pq.read_table(tmp_path / record.file.key)
    assert {name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)} == {
        "id": "uint16",
        "patch": "list<element: uint8>",
        "frequency": "int64",
        "key": "uint64",
    }
    assert table["id"].to_pylist() == list(range(100))
    for patch, key in zip(table["patch"].to_pylist(), table["key"].to_pylist(), strict=True):
        assert key == (None if max(patch) > 15 else sum(count << 4 * cell for cell, count in enumerate(patch)))
    assert table["key"].null_count > 0
    document = json.loads((tmp_path / record.tokenizer_file.key).read_text())
    assert document == {
        "format": 1,
        "shape": [1, 5],
        "size": 101,
        "asked_size": 101,
        "sep_id": 100,
        "silent_id": 0,
        "rule": "cosine-exact-1",
        "motifs_sha256": sha256_of(tmp_path / "1x5/table.parquet"),
        "plan_id": "plan",
        "vocabulary_sha256": record.file.sha256,
    }


def test_a_table_with_fewer_motifs_gives_a_smaller_vocabulary_that_says_so(
    store: LocalStore, motifs: Counter[bytes]
) -> None:
    record, vocabulary = put_vocabulary(store, motifs, SHAPE, 32_000)
    assert record.motifs == len(motifs) == record.size - 1 == vocabulary.document.sep_id
    assert vocabulary.document.asked_size == 32_000
    assert record.coverage == pytest.approx(1)


@pytest.mark.parametrize("frequency_of_silence", [0, 2])
def test_silence_takes_the_last_place_where_it_is_not_among_the_most_frequent(
    store: LocalStore, frequency_of_silence: int
) -> None:
    often = Counter({bytes([k, 0]): 9 - k for k in range(1, 6)}) + Counter({bytes(2): frequency_of_silence})
    record, vocabulary = put_vocabulary(store, often, MotifShape(1, 2), 4)
    assert vocabulary.patches.tolist() == [[1, 0], [2, 0], [0, 0]]
    assert vocabulary.document.silent_id == 2
    assert record.frequency == 8 + 7 + frequency_of_silence


def test_tokens_take_32_bits_where_16_are_too_few(store: LocalStore) -> None:
    for n_motifs, kind in ((65_535, "uint16"), (65_536, "uint32")):
        patches = patches_of(np.arange(n_motifs, dtype=np.uint64), 4)
        path = store.root / f"{kind}.parquet"
        write_vocabulary(path, patches, np.ones(n_motifs, np.int64), MotifShape(1, 4))
        assert str(pq.read_schema(path).field("id").type) == kind


@pytest.mark.parametrize(
    ("shape", "size", "said"),
    [
        (MotifShape(3, 11), 32_000, "found: 33 cells; expected: at most 32"),
        (SHAPE, 1, "found: 1; expected: 2 to 4,294,967,296"),
        (SHAPE, (1 << 32) + 1, "found: 4,294,967,297"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused(
    store: LocalStore, motifs: Counter[bytes], shape: MotifShape, size: int, said: str
) -> None:
    missing = StoredFile(key="never/read.parquet", size=0, sha256="")
    with pytest.raises(ConfigurationError, match=said):
        build_vocabulary(store, "v", missing, shape=shape, size=size, plan_id="", inputs="")
    require_size(MotifShape(4, 8), 1 << 32)


def test_another_table_is_refused(store: LocalStore, motifs: Counter[bytes]) -> None:
    table = put_table(store, motifs, SHAPE)
    with pytest.raises(TableError, match=r"not a table of motifs of 1x6.*expected: 6 values"):
        build_vocabulary(store, "v", table, shape=MotifShape(1, 6), size=9, plan_id="", inputs="")
    rows = pq.read_table(store.root / table.key)
    for damage, said in ((rows[::-1], "not sorted"), (rows.drop_columns("frequency"), "no column frequency")):
        pq.write_table(damage, store.root / "other.parquet")
        path = store.root / "other.parquet"
        other = StoredFile(key="other.parquet", size=path.stat().st_size, sha256=sha256_of(path))
        with pytest.raises(TableError, match=said):
            build_vocabulary(store, "v", other, shape=SHAPE, size=90, plan_id="", inputs="")
    with pytest.raises(StoreError, match="damaged"):
        build_vocabulary(
            store, "v", table.model_copy(update={"sha256": "0"}), shape=SHAPE, size=9, plan_id="", inputs=""
        )
    assert not (store.root / "v").exists()


def test_the_same_table_gives_the_same_bytes(tmp_path: Path, motifs: Counter[bytes]) -> None:
    records = [put_vocabulary(LocalStore(tmp_path / name), motifs, SHAPE, 77)[0] for name in "ab"]
    assert records[0] == records[1]


def test_a_folder_of_both_files_is_all_that_is_needed(store: LocalStore, motifs: Counter[bytes]) -> None:
    record, vocabulary = put_vocabulary(store, motifs, SHAPE, 50)
    loaded = load_vocabulary(store.root / "1x5/vocabulary")
    assert loaded.document == vocabulary.document
    np.testing.assert_array_equal(loaded.patches, vocabulary.patches)
    np.testing.assert_array_equal(loaded.frequency, vocabulary.frequency)
    (store.root / record.tokenizer_file.key).unlink()
    with pytest.raises(DocumentError, match=r"no tokenizer; found: no tokenizer\.json"):
        load_vocabulary(store.root / "1x5/vocabulary")
    with pytest.raises(DocumentError, match="is missing"):
        read_vocabulary(store, record)


def test_files_that_do_not_belong_together_are_refused(store: LocalStore, motifs: Counter[bytes]) -> None:
    record, vocabulary = put_vocabulary(store, motifs, SHAPE, 50)
    document, table = store.root / record.tokenizer_file.key, store.root / record.file.key
    edit(document, silent_id=7)
    with pytest.raises(TableError, match=r"contradicts tokenizer\.json"):
        load_vocabulary(document.parent)
    edit(document, silent_id=0, sep_id=60, size=61)
    with pytest.raises(TableError, match=r"found: 49 motifs.*expected: ids 0 to 59"):
        load_vocabulary(document.parent)
    edit(document, sep_id=49, size=50, format=2)
    with pytest.raises(NewerDocument, match=r"newer version.*format 2"):
        load_vocabulary(document.parent)
    edit(document, format=1, rule="cosine-exact-2")
    with pytest.raises(NewerDocument, match="rule cosine-exact-2"):
        load_vocabulary(document.parent)
    edit(document, rule="cosine-exact-1", added_by_a_newer_version=1)
    load_vocabulary(document.parent)
    write_vocabulary(table, vocabulary.patches, vocabulary.frequency + 1, SHAPE)
    with pytest.raises(DocumentError, match=r"not the vocabulary that tokenizer\.json names"):
        load_vocabulary(document.parent)
    table.write_bytes(table.read_bytes()[:-20])
    edit(document, vocabulary_sha256=sha256_of(table))
    with pytest.raises(TableError, match="damaged"):
        load_vocabulary(document.parent)
