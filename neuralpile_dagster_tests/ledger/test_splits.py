"""What splits are decided from: animals, twins and benchmarks of published sessions, and entries of ``hold_out``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.benchmarks import Benchmark, load_benchmarks
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.errors import ConfigurationError, HubError, MergeError
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.piles import plan_config
from neuralpile_dagster.ledger.splits import (
    held_out_sessions,
    keep_earlier_splits,
    read_earlier_splits,
    read_published_splits,
    require_possible_choices,
    session_identities,
)
from neuralpile_dagster.merge.plan import plan_pile
from neuralpile_dagster.merge.sources import source_from_component
from neuralpile_dagster.merge.splits import SessionId, SessionIdentity
from neuralpile_dagster.orchestration.assets.pile import PileConfig
from neuralpile_dagster.records import ComponentRecord, FactsRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import LocalStore, write_record
from neuralpile_dagster_tests.fixtures.hub_folders import silent
from neuralpile_dagster_tests.fixtures.sessions import DATASET, put_session, write

FOLDERS = {"s1": "sub-1", "s2": "sub-1", "s3": "sub-2"}


class Published:
    """A component of three sessions in the store and on a hub; facts state these subjects."""

    def __init__(self, home: Path, subjects: tuple[str | None, ...]) -> None:
        self.settings = Settings(home=home, store=str(home / "store"), archive="dandi")
        self.store = LocalStore(home / "store")
        self.hub = LocalHub(home / "hub", "local")
        records = {
            name: put_session(self.store, name, subject=folder, fingerprint=f"spikes of {name}").model_copy(
                update={"facts": FactsRecord(subject=subject)}
            )
            for (name, folder), subject in zip(FOLDERS.items(), subjects, strict=True)
        }
        for name, record in records.items():
            write_record(self.store, f"mice/spike_counts/{name}.json", record)
        self.record = write(home / "staging" / "mice", self.store, records)
        self.hub.publish("mice", home / "staging" / "mice", silent)
        self.say(self.record)

    def say(self, record: ComponentRecord) -> None:
        write_record(self.store, documents.published_path(DATASET, self.settings), record)

    def identities(
        self, dataset: Dataset = DATASET, repository: str = "mice", lists: dict[str, Benchmark] | None = None
    ) -> dict[str, SessionIdentity]:
        sessions: list[SessionId] = [("mice", folder, name) for name, folder in FOLDERS.items()]
        found = session_identities(
            self.store, self.hub, self.settings, {"mice": dataset}, {"mice": repository}, sessions, lists or {}
        )
        return {session[2]: identity for session, identity in found.items()}


@pytest.mark.parametrize(
    ("subjects", "animals"),
    [
        (("Alice", "Alice", "Bob"), ["Alice", "Alice", "Bob"]),
        (("Alice", "Bob", None), ["1", "1", "2"]),
        (("Alice", None, ""), ["1", "1", "2"]),
    ],
    ids=["stated", "differ", "not all state it"],
)
def test_the_animal_is_what_all_files_of_its_folder_state_else_the_folder(
    tmp_path: Path, subjects: tuple[str | None, ...], animals: list[str]
):
    found = Published(tmp_path, subjects).identities()
    assert [identity.subject for identity in found.values()] == animals
    assert {identity.dataset for identity in found.values()} == {"mice"}
    assert [identity.fingerprint for identity in found.values()] == ["spikes of s1", "spikes of s2", "spikes of s3"]
    assert {identity.seconds for identity in found.values()} == {2.0}


def test_lengths_are_not_known_where_sessions_have_bins_of_several_widths(tmp_path: Path):
    made = Published(tmp_path, ("Alice", "Alice", "Bob"))
    made.say(made.record.model_copy(update={"other_bin_widths_s": (1 / 60,)}))
    assert {identity.seconds for identity in made.identities().values()} == {None}


def test_a_rows_same_subject_joins_folders_of_one_animal(tmp_path: Path):
    made = Published(tmp_path, ("Alice", "Alice", "Bob"))
    row = DATASET.model_copy(update={"same_subject": r"^(?P<subject>sub)-\d$"})
    assert [identity.subject for identity in made.identities(row).values()] == ["sub"] * 3


def test_of_components_that_an_earlier_version_published_the_records_of_sessions_say_it(tmp_path: Path):
    made = Published(tmp_path, ("Alice", "Alice", "Bob"))
    now = made.identities()
    old = [session.model_copy(update={"subject": None, "fingerprint": None}) for session in made.record.sessions]
    made.say(made.record.model_copy(update={"sessions": tuple(old)}))
    assert made.identities() == now
    again = old[0].model_copy(update={"counts": old[0].counts.model_copy(update={"sha256": "0" * 64})})
    made.say(made.record.model_copy(update={"sessions": (again, *old[1:])}))
    assert made.identities()["s1"].fingerprint is None, "made again since"


def test_of_another_owners_repository_its_tables_say_it(tmp_path: Path):
    made = Published(tmp_path, ("Alice", "Alice", "Bob"))
    found = made.identities(repository="local/mice")
    assert [(i.subject, i.fingerprint, i.seconds) for i in found.values()] == [
        ("Alice", None, 2.0), ("Alice", None, 2.0), ("Bob", None, 2.0),
    ]  # fmt: skip
    nowhere = made.identities(repository="local/nowhere")
    assert [(i.subject, i.seconds) for i in nowhere.values()] == [("1", None), ("1", None), ("2", None)]


def test_a_sessions_benchmarks_are_the_lists_that_hold_it(tmp_path: Path):
    made = Published(tmp_path, (None, None, None))
    common = {"title": "t", "url": "https://lab.org", "kind": "eval", "datasets": ["mice"]}
    lists = {
        "one": Benchmark.model_validate({"name": "one", **common, "patterns": ["sub-1/s2"]}),
        "all": Benchmark.model_validate({"name": "all", **common}),
    }
    found = made.identities(lists=lists)
    assert [identity.benchmarks for identity in found.values()] == [("all",), ("one", "all"), ("all",)]


PILE = {
    ("mice-bin10ms", "sub-1", "day-1"): SessionIdentity("mice", "Alice", benchmarks=("neds_test",)),
    ("mice-bin10ms", "sub-1", "day-2"): SessionIdentity("mice", "Alice"),
    ("mice-bin10ms", "sub-2", "day-3"): SessionIdentity("mice", "Bob"),
    ("rats", "sub-1", "day-1"): SessionIdentity("rats", "Carol"),
}


@pytest.fixture(scope="module")
def lists() -> Iterator[dict[str, Benchmark]]:
    yield load_benchmarks(Settings.from_environment({"NEURALPILE_HOME": "/nowhere"}))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("benchmark:neds_test", [0]),
        ("dataset:mice", [0, 1, 2]),
        ("dataset:mice-bin10ms", [0, 1, 2]),
        ("session:mice/day-[12]", [0, 1]),
        ("session:rats/*", [3]),
        ("subject:mice/Alice", [0, 1]),
        ("subject:mice/sub-2", [2]),
    ],
)
def test_an_entry_names_its_sessions(lists: dict[str, Benchmark], entry: str, expected: list[int]):
    assert held_out_sessions([entry], PILE, lists) == {list(PILE)[number] for number in expected}


AS_PUBLISHED = PileConfig().model_dump()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("benchmark:nedstest", r"one of bwb_eval, .*neds_test.*did you mean 'neds_test'"),
        ("benchmark:bwb_eval", r"no session of the benchmark bwb_eval in it.*a benchmark with sessions in this pile"),
        ("benchmark:bwm_2023_12", r"not part of this package.*benchmarks/bwm_2023_12\.yaml"),
        ("dataset:mise", r"one of mice, rats.*did you mean 'mice'"),
        ("session:mise/day-1", r"one of mice, rats"),
        ("session:mice/night*", r"one of day-1, day-2, day-3"),
        ("subject:mice/Alic", r"one of Alice, Bob.*did you mean 'Alice'"),
        ("mice", r"expected: benchmark:<name>, dataset:<name>"),
        ("", r"expected: benchmark:<name>, dataset:<name>"),
    ],
)
def test_an_entry_that_names_nothing_is_refused_with_the_known_names(
    lists: dict[str, Benchmark], entry: str, message: str
):
    with pytest.raises(ConfigurationError, match=message):
        held_out_sessions(["dataset:rats", entry], PILE, lists)


def publish_pile(made: Published, table: pa.Table, folder: Path) -> None:
    (folder / "splits").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "splits" / "splits.parquet")
    made.hub.publish("neural-pile", folder, silent)


def test_the_splits_published_before_are_kept_when_another_plan_replaces_them(tmp_path: Path):
    made = Published(tmp_path, (None, None, None))
    sources = [source_from_component("local/mice", made.record.sessions)]
    old, new = (plan_pile(sources, seed=seed, test_size=0.3) for seed in (0, 1))
    assert old.splits is not None
    assert read_published_splits(made.hub, NEURAL_PILE, made.settings) is None
    publish_pile(made, old.splits, tmp_path / "pile")
    keep_earlier_splits(made.store, made.hub, NEURAL_PILE, made.settings, old.record)
    assert read_earlier_splits(made.store, NEURAL_PILE, made.settings, old.record.plan_id) is None, (
        "it is published again"
    )
    keep_earlier_splits(made.store, made.hub, NEURAL_PILE, made.settings, new.record)
    kept = read_earlier_splits(made.store, NEURAL_PILE, made.settings, new.record.plan_id)
    assert kept is not None and kept.equals(old.splits)
    found = read_published_splits(made.hub, NEURAL_PILE, made.settings)
    assert found is not None and found.where == f"local/neural-pile, plan {old.record.plan_id}"


def test_damaged_splits_on_the_hub_stop_a_plan_that_follows_them_but_no_publication(tmp_path: Path):
    made = Published(tmp_path, (None, None, None))
    plan = plan_pile([source_from_component("local/mice", made.record.sessions)], seed=0, test_size=0.3)
    assert plan.splits is not None
    publish_pile(made, plan.splits, tmp_path / "pile")
    held = made.hub.path("neural-pile").resolve() / "splits" / "splits.parquet"
    content = bytearray(held.read_bytes())
    content[len(content) // 2] ^= 1
    held.unlink()  # not in the folder that it was published from, which shares the file
    held.write_bytes(content)
    with pytest.raises(HubError, match=r"splits/splits\.parquet of neural-pile is damaged"):
        read_published_splits(made.hub, NEURAL_PILE, made.settings)
    lines: list[str] = []
    keep_earlier_splits(made.store, made.hub, NEURAL_PILE, made.settings, plan.record, lines.append)
    assert "are not compared with these" in lines[0] and "is damaged" in lines[0]


def test_a_table_of_another_form_is_not_followed(tmp_path: Path):
    made = Published(tmp_path, (None, None, None))
    publish_pile(made, pa.table({"session_id": ["a"], "split": ["test"]}), tmp_path / "pile")
    assert read_published_splits(made.hub, NEURAL_PILE, made.settings) is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("benchmark:bwb_evil", r"benchmark:bwb_evil names nothing.*did you mean 'bwb_eval'"),
        ("bwb_eval", "hold_out: bwb_eval is invalid"),
        ("benchmark:bwm_2022_10", "cannot be held out.*bwm_2022_10.yaml"),
    ],
)
def test_what_no_pile_can_hold_out_is_refused_before_anything_is_built(
    entry: str, message: str, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, store=str(tmp_path))
    known = ["benchmark:bwb_eval", "benchmark:falcon", "benchmark:nlb", "dataset:mice", "session:x/*", "subject:x/y"]
    require_possible_choices({**AS_PUBLISHED, "hold_out": known}, settings)
    with pytest.raises(ConfigurationError, match=message):
        require_possible_choices({**AS_PUBLISHED, "hold_out": [entry]}, settings)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"split_by": "subjects"}, "needs the hash rule"),
        ({"test_size": 0.6, "valid_size": 0.5}, "leave nothing to train on"),
    ],
)
def test_a_split_that_no_pile_can_have_is_refused_before_anything_is_built(
    choices: dict[str, Any], message: str, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, store=str(tmp_path))
    with pytest.raises(MergeError, match=message):
        require_possible_choices({**AS_PUBLISHED, **choices}, settings)
    require_possible_choices({**AS_PUBLISHED, **choices, "split_rule": "hash", "valid_size": 0.1}, settings)


def test_what_the_row_of_a_pile_holds_out_stays_held_out_whatever_a_build_adds(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, store=str(tmp_path / "store"))
    pile = NEURAL_PILE.model_copy(update={"hold_out": ("dataset:x",)})
    for given, expected in (["session:y/*"], ["dataset:x", "session:y/*"]), ([], ["dataset:x"]):
        config = plan_config(LocalStore(tmp_path / "store"), pile, settings, changes={"hold_out": given})
        assert config["neural_pile__manifest"]["config"]["hold_out"] == expected
