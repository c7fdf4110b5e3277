"""Fields of DANDI's documents that do not have their form: each costs itself, with a note that a person sees."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from neuralpile_dagster.archives.model import ArchiveFile, Listing
from neuralpile_dagster.catalog.model import Source
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.publish.component import component_inputs
from neuralpile_dagster.recordings.manifest import Manifest, choose_sessions
from neuralpile_dagster.records import Citation
from neuralpile_dagster_tests.fixtures.archives import archive_of
from neuralpile_dagster_tests.fixtures.house import House, house, neuralpile
from neuralpile_dagster_tests.servers.dandi_server import DandiServer, dandi_server
from neuralpile_dagster_tests.servers.dandi_store import Version, raw_documents
from neuralpile_dagster_tests.servers.faults import Fault
from neuralpile_dagster_tests.servers.http import Request, Response, json_response

V2H = next(dataset for dataset in RODENT if dataset.name == "v2h")
SOURCE = Source(id=V2H.source.id, version="draft")
JUNK: tuple[Any, ...] = (
    None,
    "",
    "junk",
    "\ud800",
    0,
    -5,
    1.5,
    1e30,
    10**30,
    True,
    [],
    ["Units"],
    [None],
    [[[]]],
    [{"value": 7}],
    {},
    {"value": "Units"},
    {"a": {"b": [{"c": None}]}},
)
ENTRY = {"asset_id": "file_id", "path": "path", "size": "size", "modified": "modified"}  # and the field of ours
METADATA = {"digest": "digests", "contentUrl": "url", "variableMeasured": "variables"}
CITATION = {
    "name": "title",
    "contributor": "authors",
    "citation": "citation",
    "license": "license",
    "doi": "doi",
    "url": "url",
}
DIGESTS = {"dandi:sha2-256": "sha256", "dandi:dandi-etag": "dandi-etag"}
AGAIN = {"asset_id": "identifier", "path": "path", "size": "contentSize"}  # where the metadata repeat the entry
JSON = (("Content-Type", "application/json"),)
MISSING = object()


class Draft:
    """A served draft of three real files, of which a test changes the second."""

    def __init__(self, server: DandiServer, shared_data: Path, folder: Path) -> None:
        entries, metadata = raw_documents(shared_data, SOURCE.id)
        self.entries = [entry for entry in entries if "Units" in json.dumps(entry)][:3]
        self.metadata = metadata
        self.http = server.http
        self.archive = archive_of(server, folder)
        server.store.add_raw(SOURCE.id, self.entries, metadata)
        self.version: Version = server.store.dandisets[SOURCE.id].versions["draft"]
        self.whole = self.archive.list_files(SOURCE)
        assert self.whole.notes == ()

    def list(self, *path: str, value: Any, of: str = "entry") -> Listing:
        """List with one field of the second entry, or of the version's metadata, replaced."""
        changed = copy.deepcopy(self.entries[1] if of == "entry" else self.metadata)
        place = changed
        for name in path[:-1]:
            place = place[name]
        if value is MISSING:
            place.pop(path[-1], None)
        else:
            place[path[-1]] = value
        second = list(self.version.assets.values())[1]
        second.raw, self.version.raw = (changed, self.metadata) if of == "entry" else (self.entries[1], changed)
        return self.archive.list_files(SOURCE)


@pytest.fixture(scope="module")
def draft(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Draft]:
    with dandi_server() as server:
        yield Draft(server, shared_data, tmp_path_factory.mktemp("cache"))


def changed_fields(one: ArchiveFile | Citation, other: ArchiveFile | Citation) -> set[str]:
    return {name for name in type(one).model_fields if getattr(one, name) != getattr(other, name)}


def assert_others_intact(draft: Draft, listing: Listing) -> ArchiveFile:
    """All but the second file, and the citation, are as they were; returns the second."""
    first, second, third = (file.file_id for file in draft.whole.files)
    files = {file.file_id: file for file in listing.files}
    assert (files[first], files[third]) == (draft.whole.files[0], draft.whole.files[2])
    assert listing.citation == draft.whole.citation
    assert listing.state == draft.whole.state
    return files[second]


@pytest.mark.parametrize("field", sorted(ENTRY))
def test_an_invalid_field_of_an_entry_is_noted_and_taken_from_the_metadata(draft: Draft, field: str):
    for value in (*JUNK, MISSING):
        if field == "path" and value in ("junk", "\ud800"):  # which are paths
            continue
        if field == "size" and type(value) is int and value == 0:
            continue
        listing = draft.list(field, value=value)
        second = assert_others_intact(draft, listing)
        lost = {"modified"} if field == "modified" else set()
        assert changed_fields(second, draft.whole.files[1]) == lost
        (note,) = listing.notes
        assert note.startswith(f"invalid {field} of ")


@pytest.mark.parametrize("field", sorted(METADATA))
def test_an_invalid_field_of_a_files_metadata_is_noted_and_costs_that_field(draft: Draft, field: str):
    for value in (*JUNK, MISSING):
        listing = draft.list("metadata", field, value=value)
        second = assert_others_intact(draft, listing)
        assert changed_fields(second, draft.whole.files[1]) == {METADATA[field]}
        assert getattr(second, METADATA[field]) in (None, (), {})
        if field == "variableMeasured":
            stated = value is not None and value is not MISSING and value != []
            assert second.variables == (None if stated else ())
            assert bool(listing.notes) == stated
        elif field == "contentUrl" and value == []:
            assert listing.notes == ()
        else:
            assert [note.startswith(f"invalid {field} of {draft.entries[1]['path']!r}") for note in listing.notes] == [
                True
            ]


@pytest.mark.parametrize("algorithm", sorted(DIGESTS))
def test_an_invalid_digest_leaves_the_other_one(draft: Draft, algorithm: str):
    for value in (*JUNK, MISSING):
        listing = draft.list("metadata", "digest", algorithm, value=value)
        second = assert_others_intact(draft, listing)
        assert changed_fields(second, draft.whole.files[1]) == {"digests"}
        kept = dict(draft.whole.files[1].digests)
        del kept[DIGESTS[algorithm]]
        assert second.digests == kept
        assert len(listing.notes) == (value is not None and value is not MISSING)


def test_invalid_metadata_are_noted_once_and_leave_the_entry(draft: Draft):
    for value in (*(value for value in JUNK if not isinstance(value, dict)), MISSING):
        listing = draft.list("metadata", value=value)
        second = assert_others_intact(draft, listing)
        assert changed_fields(second, draft.whole.files[1]) == {"digests", "url", "variables"}
        assert second.variables is None
        (note,) = listing.notes
        assert note.startswith("invalid metadata of ")


@pytest.mark.parametrize("field", sorted(AGAIN))
def test_an_entry_that_cannot_be_named_or_measured_is_left_out_and_noted(draft: Draft, field: str):
    entry = copy.deepcopy(draft.entries[1])
    entry[field] = entry["metadata"][AGAIN[field]] = None
    listing = draft.list("metadata", value=entry["metadata"])
    assert listing.notes == ()
    list(draft.version.assets.values())[1].raw = entry
    listing = draft.archive.list_files(SOURCE)
    assert [file.path for file in listing.files] == [draft.entries[0]["path"], draft.entries[2]["path"]]
    assert {note.split(" of ")[0] for note in listing.notes} == {f"invalid {field}", "invalid entry"}


@pytest.mark.parametrize("field", sorted(CITATION))
def test_an_invalid_field_of_a_version_is_noted_and_costs_that_field(draft: Draft, field: str):
    for value in (*JUNK, MISSING):
        listing = draft.list(field, value=value, of="version")
        assert listing.files == draft.whole.files
        found = listing.citation
        assert changed_fields(found, draft.whole.citation) <= {CITATION[field]}
        is_text = isinstance(value, str) and value != "\ud800"
        if field in ("doi", "url") and (value is None or value is MISSING):
            assert listing.notes == ()
        elif field in ("name", "citation", "doi") and is_text:
            assert (listing.notes, getattr(found, CITATION[field])) == ((), value or None)
        elif field in ("license", "contributor") and value == []:
            assert listing.notes == ()
        elif field == "contributor" and value == [{"value": 7}]:  # a contributor without a name
            assert (listing.notes, found.authors) == ((), ())
        elif field == "license" and value == ["Units"]:
            assert (listing.notes, found.license) == ((), "Units")
        else:
            assert getattr(found, CITATION[field]) in (None, ())
            (note,) = listing.notes
            assert note.startswith(f"invalid {field} of version draft")


def test_an_invalid_contributor_or_license_leaves_the_others(draft: Draft):
    contributors = [7, *draft.metadata["contributor"], {"name": ["x"]}, {"roleName": 3}]
    listing = draft.list("contributor", value=contributors, of="version")
    assert listing.citation == draft.whole.citation
    assert len(listing.notes) == 1
    listing = draft.list("license", value=["spdx:CC-BY-4.0", {}, "spdx:CC0-1.0"], of="version")
    assert listing.citation.license == "CC-BY-4.0, CC0-1.0"
    assert len(listing.notes) == 1


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_replaced_at_any_depth_the_files_are_listed(draft: Draft, seed: int):
    choose = random.Random(seed)

    def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        names = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
        for name in names:
            yield (*path, name)
            yield from places(document[name], (*path, name))

    of = choose.choice(["entry", "version"])
    document = draft.entries[1] if of == "entry" else draft.metadata
    path = choose.choice(list(places(document)))
    listing = draft.list(*path, value=choose.choice(JUNK), of=of)
    if of == "entry":
        assert_others_intact(draft, listing)
    else:
        assert listing.files == draft.whole.files
        assert len(changed_fields(listing.citation, draft.whole.citation)) <= 1


@pytest.mark.parametrize("field", ["name", "asset_count", "size", "status", "created", "modified", "unheard_of"])
def test_an_invalid_field_of_the_apis_own_documents_costs_at_most_the_time_of_the_draft(draft: Draft, field: str):
    draft.version.raw, api = draft.metadata, draft.archive.list_files
    for value in JUNK:
        with altered(draft, "draft_version", field, value):
            listing = api(SOURCE)
        assert (listing.files, listing.citation) == (draft.whole.files, draft.whole.citation)
        used = field == "modified" or (field == "asset_count" and not (type(value) is int and 0 <= value < 2**63))
        assert [note.startswith(f"invalid {field} of the draft") for note in listing.notes] == [True] * used


def test_a_latest_version_that_cannot_be_read_is_an_error_and_not_the_draft(draft: Draft):
    draft.version.raw = draft.metadata
    for value in (*(value for value in JUNK if value is not None), {"version": "../../x"}):
        with altered(draft, "most_recent_published_version", None, value):
            with pytest.raises(ArchiveError, match="not understood"):
                draft.archive.list_files(Source(id=SOURCE.id, version="latest"))
            assert draft.archive.list_files(SOURCE).files == draft.whole.files


@contextmanager
def altered(draft: Draft, document: str, field: str | None, value: Any) -> Iterator[None]:
    """The dandiset's own document has another value in a field of one of its versions."""
    api = draft.http.application

    def alter(request: Request) -> Response:
        response = api(request)
        if request.path != f"/api/dandisets/{SOURCE.id}/":
            return response
        assert isinstance(response.body, bytes)
        content = json.loads(response.body)
        if field is None:
            content[document] = value
        else:
            content[document][field] = value
        return json_response(content)

    draft.http.application = alter
    try:
        yield
    finally:
        draft.http.application = api


@pytest.mark.parametrize("entries", [{"a": 1}, "junk", [7]])
def test_a_listing_in_which_no_entry_is_an_object_is_not_a_dandiset_without_files(draft: Draft, entries: Any):
    page = {"count": 1, "next": None, "previous": None, "results": entries}
    fault = Fault("status", path="/assets/", status=200, body=json.dumps(page).encode(), headers=JSON)
    draft.http.faults.add(fault)
    with pytest.raises(ArchiveError, match="not understood"):
        draft.archive.list_files(SOURCE)


def test_a_file_whose_variables_are_invalid_is_not_dropped_for_lacking_units(draft: Draft):
    whole = choose_sessions(V2H, draft.whole)
    listing = draft.list("metadata", "variableMeasured", value=["Units"])
    manifest = choose_sessions(V2H, listing)
    assert [session.key for session in manifest.sessions] == [session.key for session in whole.sessions]
    assert manifest.notes == listing.notes
    (note,) = manifest.notes
    assert note.endswith("not used: found 'Units', expected a valid dictionary (at 0)")


@pytest.fixture
def noted(draft: Draft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """An instance on the environment's DANDI server, where one file's variables and the license are invalid."""
    draft.list("metadata", "variableMeasured", value="Units")
    draft.version.raw = {**draft.metadata, "license": "CC"}
    monkeypatch.setenv("DANDI_API_URL", draft.archive.api_url)
    dataset = V2H.model_copy(update={"source": SOURCE})
    with house(tmp_path, "dandi", [dataset]) as made:
        yield made


def test_notes_are_shown_with_the_manifest(noted: House):
    (dataset,) = noted.datasets
    noted.discover(dataset)
    event = noted.instance.get_latest_materialization_event(names.manifest_key(dataset))
    assert event is not None and event.asset_materialization is not None
    shown = str(event.asset_materialization.metadata["archive_notes"].value).splitlines()
    assert [line.split(" of ")[0] for line in shown] == ["invalid license", "invalid variableMeasured"]


def test_notes_are_shown_on_the_command_line(draft: Draft, noted: House, tmp_path: Path):
    home = {"NEURALPILE_HOME": tmp_path, "DANDI_API_URL": draft.archive.api_url, "COLUMNS": "400"}
    ran = neuralpile("sessions", "v2h", **home)
    assert "invalid license of version draft" in ran.out
    ran = neuralpile("sessions", "v2h", "--json", **home)
    assert [json.loads(line)["version"] for line in ran.out.splitlines()] == ["draft"] * len(
        choose_sessions(V2H, draft.whole).sessions
    )
    assert [line.split(" of ")[0] for line in ran.err.splitlines()] == ["invalid license", "invalid variableMeasured"]


def test_notes_make_nothing_anew_and_manifests_from_before_them_open(draft: Draft):
    manifest = choose_sessions(V2H, draft.whole)
    old = manifest.model_dump(mode="json", exclude={"notes"})
    assert Manifest.model_validate(old) == manifest
    noted = manifest.model_copy(update={"notes": ("invalid license of version draft",)})
    assert documents.manifest_digest(noted) == documents.manifest_digest(manifest)
    one, other = (component_inputs(V2H, each, {}, missing={}, repository="a/b") for each in (manifest, noted))
    assert one == other
