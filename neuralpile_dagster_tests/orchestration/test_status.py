"""Where a dataset stands: sessions that can still be made, and no others, are to do or failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from neuralpile_dagster.errors import DamagedRecording
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.status import dataset_status
from neuralpile_dagster.orchestration import names
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, House
from neuralpile_dagster_tests.fixtures.kept import kept

FIRST, MIDDLE, LAST = SESSIONS


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The first session is done and changed since, the middle one failed, the last was never made; tests only look."""
    with kept("broken", tmp_path_factory.mktemp("standing") / "copy") as made:
        for record in [key for key in made.store.keys(MICE.key) if LAST in key]:
            made.store.delete(record)
        first = made.archive / MICE.source.folder / FILES[0]
        first.write_bytes(first.read_bytes() + b"more")
        made.discover()
        yield made


def table_of_sessions(made: House) -> dict[str, dict[str, object]]:
    """The manifest's table as the UI shows it, by session."""
    event = made.instance.get_latest_materialization_event(names.manifest_key(MICE))
    assert event is not None
    assert event.asset_materialization is not None
    table = event.asset_materialization.metadata["sessions_table"]
    assert isinstance(table, dg.TableMetadataValue)
    return {str(record.data["session"]): dict(record.data) for record in table.records}


def test_the_manifests_table_says_of_each_session_where_it_stands(standing: House) -> None:
    rows = table_of_sessions(standing)
    assert str(rows[FIRST]["status"]).startswith("stale: ")
    assert str(rows[MIDDLE]["status"]).startswith(f"failed: {FILES[1]} cannot be opened as HDF5")
    assert len(str(rows[MIDDLE]["status"])) < 200
    assert rows[LAST]["status"] == "to do"


def test_a_session_that_vanished_and_was_never_made_is_not_to_do(listed_house: Callable[..., House]) -> None:
    made = listed_house()
    assert made.batch([FIRST]).success
    for name in (FILES[0], FILES[2]):
        (made.archive / MICE.source.folder / name).unlink()
    made.discover()
    status = dataset_status(made.store, MICE, made.settings)
    assert (status.known, status.done, status.failed, status.to_do) == (2, 1, {}, 1)
    states = {session: row["status"] for session, row in table_of_sessions(made).items()}
    assert states == {
        FIRST: "no longer in the archive; its results are kept",
        MIDDLE: "to do",
        LAST: "no longer in the archive",
    }


def test_failures_of_sessions_that_are_unknown_or_gone_do_not_count(listed_house: Callable[..., House]) -> None:
    made = listed_house()
    (made.archive / MICE.source.folder / FILES[2]).unlink()
    made.discover()
    for key in (MIDDLE, LAST, "sub-Z_of-an-older-rule"):
        documents.record_failure(made.store, MICE, made.settings, key, DamagedRecording("broken"), "", "run")
    status = dataset_status(made.store, MICE, made.settings)
    assert (status.known, status.done, list(status.failed), status.to_do) == (2, 0, [MIDDLE], 1)
