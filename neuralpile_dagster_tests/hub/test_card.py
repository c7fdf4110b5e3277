from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.publish.card_parts import Config, Split, metadata_block
from neuralpile_dagster.publish.component import write_component
from neuralpile_dagster.records import Citation, ClockRecord
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster.tables.schemas import ROW_SCHEMA
from neuralpile_dagster_tests.fixtures.hub_folders import silent
from neuralpile_dagster_tests.fixtures.sessions import CITATION, DATASET, manifest_of, put_session


def make(tmp_path: Path, dataset: Dataset = DATASET, **options: Any) -> tuple[Path, str]:
    """A component of two sessions and its card; options are those of the manifest, ``missing`` and ``species``."""
    store = LocalStore(tmp_path / "store")
    missing = options.pop("missing", {})
    records = {key: put_session(store, key) for key in ("s1", "s2")}
    for key, species in options.pop("species", {}).items():
        facts = records[key].facts.model_copy(update={"species": species})
        records[key] = records[key].model_copy(update={"facts": facts})
    folder = tmp_path / "mice"
    write_component(
        folder,
        store,
        dataset,
        manifest_of("s1", "s2", *missing, **options),
        records,
        missing=missing,
        repository="local/mice",
        progress=silent,
    )
    return folder, (folder / "README.md").read_text()


def metadata(card: str) -> dict[str, Any]:
    start, block, _ = card.split("---\n", 2)
    assert start == ""
    found: dict[str, Any] = yaml.safe_load(block)
    return found


def body(card: str) -> str:
    return card.split("---\n", 2)[2]


def test_the_metadata_numbers_are_those_of_the_files(tmp_path: Path, load: Callable[..., Any]):
    folder, card = make(tmp_path)
    infos = {info["config_name"]: info for info in metadata(card)["dataset_info"]}
    paths = {config["config_name"]: config["data_files"] for config in metadata(card)["configs"]}
    assert set(infos) == set(paths) == {"default", "units", "sessions", "segments", "token_counts", "preview"}
    assert paths["default"] == [{"split": "train", "path": "data/train-*"}]
    for name, info in infos.items():
        files = sorted(folder.glob(paths[name][0]["path"]))
        (split,) = info["splits"]
        assert split["name"] == "train"
        assert split["num_examples"] == sum(pq.read_metadata(file).num_rows for file in files)
        assert info["download_size"] == sum(file.stat().st_size for file in files)
        assert info["dataset_size"] == split["num_bytes"]
    for name in ("default", "preview"):  # what `datasets` itself counts when it reads the rows
        loaded = load(folder, name, split="train")
        assert infos[name]["dataset_size"] == loaded.info.splits["train"].num_bytes


def test_the_metadata_have_exactly_the_contracts_features(tmp_path: Path):
    _, card = make(tmp_path)
    default = next(info for info in metadata(card)["dataset_info"] if info["config_name"] == "default")
    assert default["features"] == [
        {"name": "spike_counts", "list": {"list": "uint8"}},
        {"name": "subject_id", "dtype": "string"},
        {"name": "session_id", "dtype": "string"},
        {"name": "segment_id", "dtype": "string"},
    ]


def test_a_single_config_is_written_as_the_hub_does_for_one():
    config = Config("default", ROW_SCHEMA, {"train": Split("data/train-*", 7, 701_568)}, 95_515)
    found = yaml.safe_load(
        metadata_block([config], pretty_name="Mice", licenses=[], tags=[], n_rows=7).strip().strip("-")
    )
    assert found["dataset_info"]["splits"] == [{"name": "train", "num_bytes": 701_568, "num_examples": 7}]
    assert found["dataset_info"]["download_size"] == 95_515
    assert "license" not in found


def test_the_card_says_where_the_data_come_from_and_how_to_cite_them(tmp_path: Path):
    _, card = make(tmp_path)
    assert metadata(card)["license"] == "cc-by-4.0"
    assert metadata(card)["pretty_name"] == "Mice that run"
    assert metadata(card)["size_categories"] == ["n<1K"]
    for words in (
        "[dandi 990002](https://dandiarchive.org/dandiset/990002)",
        "Doe, Jane; Roe, Richard",
        "> Doe and Roe (2020), Mice that run.",
        "| version | 0.1 |",
        "@misc{mice_990002",
        "[10.48324/mice](https://doi.org/10.48324/mice)",
    ):
        assert words in body(card)
    assert "SYNTHETIC" not in card and "not frozen" not in card and "missing;" not in card


def test_the_card_counts_what_was_lost(tmp_path: Path):
    _, card = make(tmp_path)
    for words in (
        "| tokens (one unit in one bin) | 1,000 |",
        "| sessions | 2 |",
        "6 were dropped for their times",
        "| time before 0 of the session's clock: no bin begins there | 6 |",
        "| above the maximum count of 255 in one bin | 84 |",
        "2 bins are saturated",
        "2 of 10 units have no spikes",
    ):
        assert words in " ".join(body(card).split())


def test_the_card_names_sessions_that_lost_many_spikes_and_says_how_much_was_observed(tmp_path: Path):
    store, folder = LocalStore(tmp_path / "store"), tmp_path / "mice"
    clock = ClockRecord(start_s=0.0, first_spike_s=0.1, last_spike_s=1.9, observed_s=0.5, intervals_stated=True)
    records = {
        "s1": put_session(store, "s1", spikes_read=1_000, dropped_negative=957),
        "s2": put_session(store, "s2", spikes_read=1_000, dropped_negative=9, clock=clock),
    }
    options = {"missing": {}, "repository": "local/mice", "progress": silent}
    component = write_component(folder, store, DATASET, manifest_of("s1", "s2"), records, **options)
    card = (folder / "README.md").read_text()
    assert "966 were dropped for their times (48.30%)" in card
    assert "Sessions that lost more than 1% of their spikes: s1 (95.7%)." in card
    assert "The files of 1 of 2 sessions state when units were observed" in card
    assert "75.0% of their bins lie outside" in card
    assert component.totals.minutes == (2.0 + 0.5) / 60
    sessions = pq.read_table(folder / "sessions" / "sessions.parquet")
    assert sessions["observed_s"].to_pylist() == [None, 0.5]
    assert sessions["first_spike_s"].to_pylist() == [None, 0.1]


def test_what_the_source_does_not_state_is_not_invented(tmp_path: Path):
    _, card = make(tmp_path, citation=Citation(), dataset=DATASET.model_copy(update={"doi": None}))
    assert "license" not in metadata(card)
    assert "| license | not stated by the source |" in card
    assert "| authors | not stated by the source |" in card


def test_synthetic_unfrozen_and_other_versions_are_said_at_the_top(tmp_path: Path):
    sample = DATASET.model_copy(update={"name": "sample-mice", "synthetic": True})
    _, card = make(
        tmp_path,
        sample,
        synthetic=True,
        frozen=False,
        version="draft",
        version_note="0.1 does not exist: draft was used",
    )
    top = body(card).split("## ")[0]
    assert "SYNTHETIC" in top and "not frozen" in top and "0.1 does not exist" in top
    assert "synthetic" in metadata(card)["tags"]


def test_missing_sessions_are_named_with_their_reasons_and_without_what_is_private(tmp_path: Path):
    missing = {f"m{i:03d}": "not built yet" for i in range(70)}
    missing["m000"] = "/home/jane/store/x.nwb is damaged; GET https://s3.org/b/x?X-Amz-Signature=abc123 failed"
    _, card = make(tmp_path, missing=missing)
    assert "Sessions missing: 70 of 72" in card
    assert "| m001 | not built yet |" in card and "m049" in card
    assert "m050" not in card and "and 20 more" in card
    assert "jane" not in card and "abc123" not in card and "https://s3.org/b/x failed" in card


HOSTILE = (
    "Mice\n---\nlicense: mit\n---\n# <script>alert(1)</script> | [x](javascript:alert(1)) ``` **b** \x1b[31m\u202e"
)


def test_hostile_metadata_stay_words(tmp_path: Path, load: Callable[..., Any]):
    citation = Citation(
        title=HOSTILE,
        authors=(HOSTILE, "A | B"),
        citation=HOSTILE,
        license=HOSTILE,
        url="javascript:alert(1)",
        doi=f"10.1/x) {HOSTILE}",
    )
    dataset = DATASET.model_copy(update={"title": HOSTILE, "description": HOSTILE, "species": HOSTILE})
    folder, card = make(tmp_path, dataset, citation=citation, version_note=HOSTILE, missing={"s9": HOSTILE})
    assert "license" not in metadata(card)
    assert metadata(card)["pretty_name"].startswith("Mice --- license: mit --- # <script>")
    assert len(load(folder, split="train")) == 6
    prose, in_fence = [], ""
    for line in body(card).splitlines():
        fence = re.match("^`{3,}", line)
        if fence and not in_fence:
            in_fence = fence[0]
        elif line == in_fence:
            in_fence = ""
        elif not in_fence:
            prose.append(line)
    assert not in_fence
    joined = "\n".join(prose)
    assert "<script" not in joined and not re.search(r"(?<!\\)\]\(javascript", joined)
    assert "\x1b" not in card and "\u202e" not in card
    assert "---" not in [line.strip() for line in card.splitlines()[card.splitlines()[1:].index("---") + 2 :]]
    rows = [line for line in prose if line.startswith("| authors")]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 3


def test_the_card_of_a_source_without_licence_keeps_its_citation(tmp_path: Path):
    _, card = make(tmp_path, citation=CITATION.model_copy(update={"license": "Ask us first"}))
    assert "license" not in metadata(card) and "| license | Ask us first |" in card


def test_a_card_does_not_call_rats_mice(tmp_path: Path):
    _, plain = make(tmp_path / "1")
    assert "sorted units (mouse)" in plain and "another species" not in plain
    _, card = make(tmp_path / "2", species={"s2": "Rattus norvegicus"})
    assert "sorted units (Mus musculus, Rattus norvegicus)" in card
    assert "sorted units (mouse)" not in card
    assert (
        "The files of 1 of 2 sessions state another species than the catalog: Rattus norvegicus in the files, mouse "
        "in the catalog." in card
    )
