"""Stored documents: their form number, fields of other versions, and damage."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.errors import DocumentError, NewerDocument
from neuralpile_dagster.ledger.documents import manifest_digest
from neuralpile_dagster.recordings.manifest import Manifest, Session
from neuralpile_dagster.records import StoredFile, document, read_document
from neuralpile_dagster.records.form import FORM, content_digest
from neuralpile_dagster.store import LocalStore, read_record, write_record

FILE = ArchiveFile(path="sub-A/a.nwb", size=3, file_id="1", digests={"sha256": "00"}, modified=None)
MANIFEST = Manifest(
    dataset="mice",
    archive="dandi",
    source_id="1",
    version="draft",
    frozen=False,
    listed_at=datetime(2026, 1, 2, tzinfo=UTC),
    considered=2,
    dropped={"not a session": 1},
    sessions=(Session(key="a", subject_id="sub-A", session_id="a", files=(FILE,)),),
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path)
    write_record(store, "m.json", MANIFEST)
    return store


def stored(store: LocalStore) -> dict:
    return json.loads((store.root / "m.json").read_text())


def with_digest(content: dict) -> str:
    """The text of a document that some version would write with this content."""
    content = {name: value for name, value in content.items() if name != "content_sha256"}
    return json.dumps({**content, "content_sha256": content_digest(content)} if "form" in content else content)


def test_a_document_is_readable_json_with_its_form(store: LocalStore) -> None:
    assert stored(store)["form"] == FORM
    assert (store.root / "m.json").read_text().splitlines()[2] == f' "form": {FORM},'
    assert read_record(store, "m.json", Manifest) == MANIFEST


def test_a_document_without_a_form_is_read(store: LocalStore) -> None:
    (store.root / "m.json").write_text(MANIFEST.model_dump_json(indent=1) + "\n")
    assert read_record(store, "m.json", Manifest) == MANIFEST


@pytest.mark.parametrize("form", [{}, {"form": FORM}])
def test_fields_of_another_version_survive_reading_and_writing_and_change_no_hash(store: LocalStore, form: dict):
    content = MANIFEST.model_dump(mode="json") | form
    content["later"] = {"what": [1, None]}
    content["sessions"][0]["files"][0]["etag"] = "é"
    (store.root / "m.json").write_text(with_digest(content))
    read = read_record(store, "m.json", Manifest)
    assert read is not None
    assert read.model_dump() == MANIFEST.model_dump()
    assert manifest_digest(read) == manifest_digest(MANIFEST)
    write_record(store, "m.json", read.model_copy(update={"version_note": "changed"}))
    again = stored(store)
    assert again["later"] == {"what": [1, None]}
    assert again["sessions"][0]["files"][0]["etag"] == "é"
    assert again["version_note"] == "changed"


def test_a_document_of_a_newer_form_asks_for_an_upgrade(store: LocalStore) -> None:
    (store.root / "m.json").write_text(with_digest(stored(store) | {"form": FORM + 1, "sessions": "elsewhere"}))
    before = (store.root / "m.json").read_bytes()
    with pytest.raises(NewerDocument, match=f"newer version of neuralpile.*form {FORM + 1}.*upgrade") as caught:
        read_record(store, "m.json", Manifest)
    assert "delete" not in str(caught.value)
    with pytest.raises(NewerDocument):
        write_record(store, "m.json", MANIFEST)
    assert (store.root / "m.json").read_bytes() == before


def test_an_old_document_that_says_the_same_is_not_rewritten(store: LocalStore) -> None:
    old = MANIFEST.model_dump_json(indent=1).encode() + b"\n"
    (store.root / "m.json").write_bytes(old)
    write_record(store, "m.json", MANIFEST)
    assert (store.root / "m.json").read_bytes() == old
    write_record(store, "m.json", MANIFEST.model_copy(update={"considered": 3}))
    assert stored(store)["form"] == FORM
    (store.root / "m.json").write_bytes(b"damaged")
    write_record(store, "m.json", MANIFEST)
    assert read_record(store, "m.json", Manifest) == MANIFEST


@pytest.mark.parametrize("form", ["1", -1, 1.0, True, None])
def test_a_form_that_is_no_number_is_refused(store: LocalStore, form: object) -> None:
    (store.root / "m.json").write_text(with_digest(stored(store) | {"form": form}))
    with pytest.raises(DocumentError, match="is not a Manifest"):
        read_record(store, "m.json", Manifest)


def test_a_program_that_misspells_a_field_is_told(store: LocalStore) -> None:
    with pytest.raises(ValueError, match="sice"):
        StoredFile(key="a", sice=1, size=1, sha256="")  # type: ignore[call-arg]
    assert json.loads(document(StoredFile(key="a", size=1, sha256=""))).keys() >= {"form", "key", "size", "sha256"}


def test_every_flipped_bit_of_a_document_is_refused() -> None:
    """The error names the file, what was found and what to do, and does not take damage for another version."""
    text = document(MANIFEST.sessions[0]).encode()
    for bit in range(len(text) * 8):
        flipped = bytearray(text)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DocumentError) as caught:
            read_document(bytes(flipped), Session, "s.json")
        assert caught.value.what.startswith("s.json is") and caught.value.found and caught.value.remedy
        assert not isinstance(caught.value, NewerDocument)


def test_a_document_of_form_1_without_a_digest_is_refused(store: LocalStore) -> None:
    content = stored(store)
    del content["content_sha256"]
    (store.root / "m.json").write_text(json.dumps(content))
    with pytest.raises(DocumentError, match=r"m.json is damaged.*found: form 1 without.*what to do: restore"):
        read_record(store, "m.json", Manifest)
