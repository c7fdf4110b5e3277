"""What byte ranges cannot verify is said on the card, and can be verified: ``access: download``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from neuralpile_dagster.ledger import documents
from neuralpile_dagster.orchestration import names
from neuralpile_dagster_tests.fixtures.house import FILES, MICE, SESSIONS, House, trains_of
from neuralpile_dagster_tests.fixtures.served import served
from neuralpile_dagster_tests.servers.dandi_server import dandi_server
from neuralpile_dagster_tests.servers.nwb_files import write_units_nwb

SAID = "of 2 sessions were read by byte ranges (`access: ranges`)"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[House]:
    """Two sessions on a server, published after they were read by ranges; the second is compressed."""
    with dandi_server() as server:
        for number, name in enumerate(FILES[:2]):
            compressed = {"compression": "gzip", "chunks": (50,)} if number else {}
            file = write_units_nwb(tmp_path / name, trains_of(number), **compressed)
            server.store.add_file(MICE.source.id, "draft", name, file)
        with served(server, tmp_path) as opened:
            opened.build(checks=False)
            yield opened


def card(made: House) -> str:
    return (made.hub_folder(MICE.name) / "README.md").read_text()


def read(made: House, access: str) -> dg.ExecuteInProcessResult:
    ops = {f"{MICE.key}__sessions": {"config": {"access": access}}}
    keys = SESSIONS[:2]
    return made.run(names.spike_trains_key(MICE), names.spike_counts_key(MICE), partitions=keys, ops=ops)


def unverified(made: House) -> list[bool]:
    records = [documents.read_counts_record(made.store, MICE, made.settings, key) for key in SESSIONS[:2]]
    return [record.unverified for record in records if record is not None]


def test_what_ranges_cannot_verify_is_on_the_card_until_whole_files_were_read(made: House) -> None:
    assert SAID in card(made)
    assert "`access: download`" in card(made)
    assert any(unverified(made))
    before = [documents.read_counts_record(made.store, MICE, made.settings, key) for key in SESSIONS[:2]]
    assert read(made, "ranges").success
    assert any(unverified(made)), "what is up to date is not read again"
    assert read(made, "download").success
    assert unverified(made) == [False, False]
    after = [documents.read_counts_record(made.store, MICE, made.settings, key) for key in SESSIONS[:2]]
    assert [r and r.file for r in after] == [r and r.file for r in before], "the counts are not made again"
    assert made.publish(checks=False).success
    assert "byte ranges" not in card(made)
