"""The sample pile, end to end, as `neuralpile demo` makes it; then every command on what it left. One run, shared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from neuralpile_dagster_tests.fixtures import once
from neuralpile_dagster_tests.fixtures.house import Ran, neuralpile

pytestmark = pytest.mark.slow_first
COMPONENTS = {"sample-units": 4, "sample-probes": 2, "sample-rates": 2, "sample-eight-probe": 2}
CONTRACT = {
    "spike_counts": datasets.List(datasets.List(datasets.Value("uint8"))),
    "subject_id": datasets.Value("string"),
    "session_id": datasets.Value("string"),
    "segment_id": datasets.Value("string"),
}


@dataclass(frozen=True)
class Demo:
    """A home in which `neuralpile demo` ran."""

    home: Path
    ran: Ran

    def __call__(self, *arguments: str | Path) -> Ran:
        """Run another command there."""
        return neuralpile(*arguments, NEURALPILE_HOME=self.home, NEURALPILE_ARCHIVE="sample")

    def hub(self, name: str) -> Path:
        return self.home / "hub" / "local" / name


@pytest.fixture(scope="module")
def demo() -> Demo:
    """The demo that all tests share: what is tried on it here leaves what it has made as it was."""
    return Demo(*once.demo())


def load(folder: Path, name: str = "default") -> datasets.DatasetDict:
    loaded = datasets.load_dataset(str(folder), name, cache_dir=str(folder.parents[2] / "cache"))
    assert isinstance(loaded, datasets.DatasetDict)
    return loaded


def value_counts(rows: datasets.Dataset) -> np.ndarray:
    """Tokens by value, int64 of shape (256,), and a check on the way that every row is a matrix."""
    found = np.zeros(256, np.int64)
    for batch in rows.with_format("arrow").iter(batch_size=1):
        units = batch["spike_counts"].chunk(0).flatten()
        counts = np.asarray(units.flatten()).reshape(len(units), -1)
        found += np.bincount(counts.ravel(), minlength=256)
    return found


def token_sum(rows: datasets.Dataset) -> int:
    return int(value_counts(rows).sum())


def stated_tokens(demo: Demo, name: str) -> int:
    (line,) = [line for line in demo.ran.out.splitlines() if line.startswith(f"local/{name}:")]
    (words,) = [part for part in line.replace(": ", ", ").split(", ") if part.endswith(" tokens")]
    return int(words.split()[0].replace(",", ""))


def test_the_demo_ends_well_and_says_what_it_made(demo: Demo) -> None:
    assert demo.ran.code == 0
    made = [line.split(":")[0] for line in demo.ran.out.splitlines() if not line.startswith("warning: ")]
    assert made == [*(f"local/{name}" for name in COMPONENTS), "local/neural-pile"]
    for line in demo.ran.out.splitlines()[: len(made)]:
        assert line.endswith(f"; in {demo.home / 'hub' / line.split(':')[0]}")


def test_the_demo_stays_in_its_own_home_whatever_is_set_up_for_real_data(demo: Demo) -> None:
    assert [path.name for path in demo.home.parent.iterdir()] == ["home"]
    assert (demo.home / "store").is_dir()


def test_the_demo_says_which_checks_warn_about_its_sessions(demo: Demo) -> None:
    told = [line.split()[1:3] for line in demo.ran.out.splitlines() if line.startswith("warning: ")]
    assert told == [
        ["sample_units/spike_counts", "plausible_rates"],
        ["sample_eight_probe/spike_counts", "few_silent_units"],
    ]


def test_progress_is_ours_alone(demo: Demo) -> None:
    assert "sample-units: 4 of 4 sessions of this batch" in demo.ran.err
    for foreign in ("did not yield", "STEP_", "Dependencies for step", "Warning", "op '"):
        assert foreign not in demo.ran.err, foreign


@pytest.mark.parametrize("name", COMPONENTS)
def test_load_dataset_gives_exactly_the_features_of_the_contract_for_a_component(demo: Demo, name: str) -> None:
    loaded = load(demo.hub(name))
    assert list(loaded) == ["train"]
    assert dict(loaded["train"].features) == CONTRACT
    assert list(loaded["train"].features) == list(CONTRACT)
    assert set(loaded["train"]["session_id"]) == set(sessions_of(demo, name))
    assert token_sum(loaded["train"]) == stated_tokens(demo, name)


def sessions_of(demo: Demo, name: str) -> list[str]:
    return [json.loads(line)["session_id"] for line in demo("sessions", name, "--json").out.splitlines()]


def test_the_pile_has_both_splits_the_source_column_and_all_tokens(demo: Demo) -> None:
    loaded = load(demo.hub("neural-pile"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 9, "test": 1}
    for rows in loaded.values():
        assert dict(rows.features) == {**CONTRACT, "source_dataset": datasets.Value("string")}
        assert list(rows.features) == [*CONTRACT, "source_dataset"]
    assert set(loaded["train"]["source_dataset"]) | set(loaded["test"]["source_dataset"]) == set(COMPONENTS)
    tokens = sum(token_sum(rows) for rows in loaded.values())
    assert tokens == sum(stated_tokens(demo, name) for name in COMPONENTS) == stated_tokens(demo, "neural-pile")


@pytest.mark.parametrize("name", [*COMPONENTS, "neural-pile"])
@pytest.mark.parametrize("config", ["units", "sessions", "token_counts", "preview"])
def test_the_extra_configs_load(demo: Demo, name: str, config: str) -> None:
    for rows in load(demo.hub(name), config).values():
        assert len(rows) > 0
        if config == "preview":
            assert list(rows.features)[: len(CONTRACT)] == list(CONTRACT)


@pytest.mark.parametrize("name", [*COMPONENTS, "neural-pile"])
def test_token_counts_are_those_of_the_rows_that_users_load(demo: Demo, name: str) -> None:
    stated = load(demo.hub(name), "token_counts")["train"].to_pandas()
    loaded = load(demo.hub(name))
    assert set(stated["split"]) == set(loaded)
    for split, rows in loaded.items():
        of_split = stated[stated["split"] == split]
        assert set(of_split["source_dataset"]) == (set(rows["source_dataset"]) if name == "neural-pile" else {name})
        np.testing.assert_array_equal(of_split.groupby("value")["count"].sum(), value_counts(rows))
    sessions = load(demo.hub(name), "sessions")["train"]
    assert (stated["value"].astype(int) * stated["count"]).sum() == sum(sessions["n_spikes"])


def test_units_are_those_of_the_rows_in_their_order(demo: Demo) -> None:
    units = load(demo.hub("sample-probes"), "units")["train"].to_list()
    sessions = load(demo.hub("sample-probes"), "sessions")["train"].to_list()
    assert {s["session_id"]: s["n_units"] for s in sessions} == {
        session: sum(unit["session_id"] == session for unit in units) for session in sessions_of(demo, "sample-probes")
    }
    first = [unit["row"] for unit in units if unit["session_id"] == sessions[0]["session_id"]]
    assert first == list(range(len(first)))


def test_nothing_half_written_is_left(demo: Demo) -> None:
    assert list(demo.home.rglob(".writing-*")) == []


def test_every_card_says_that_the_recordings_are_synthetic(demo: Demo) -> None:
    for name in (*COMPONENTS, "neural-pile"):
        assert "SYNTHETIC" in (demo.hub(name) / "README.md").read_text(), name


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file was written, and what it holds; records say when they were made."""
    files = (path for path in folder.rglob("*") if path.suffix in (".parquet", ".md") and "plans" not in path.parts)
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_building_again_makes_no_file_and_runs_no_session_and_no_shard(demo: Demo) -> None:
    store, hub = state(demo.home / "store"), state(demo.home / "hub")
    again = demo("build", "sample-units", "--merge")
    assert again.code == 0
    assert state(demo.home / "store") == store
    assert state(demo.home / "hub") == hub
    assert "of this batch" not in again.err
    assert [line for line in demo.ran.out.splitlines() if "sample-units" in line or "neural-pile" in line] == (
        again.out.splitlines()
    )


def test_status_shows_done_sessions_and_tokens(demo: Demo) -> None:
    shown = demo("status")
    assert shown.code == 0
    line, annotations = [line for line in shown.out.splitlines() if line.startswith("sample-units ")]
    assert annotations == "sample-units annotations: 4 done, 0 failed, 0 to do"
    assert line.split()[:5] == ["sample-units", "4", "4", "0", "0"]
    assert f"{stated_tokens(demo, 'sample-units'):,}" in line


def test_status_says_what_is_in_the_pile(demo: Demo) -> None:
    (line,) = [line for line in demo("status").out.splitlines() if line.startswith("neural-pile: ")]
    assert line.endswith("; up to date")
    assert f"{stated_tokens(demo, 'neural-pile'):,} tokens, " in line
    assert all(name in line for name in COMPONENTS)


def test_status_of_one_dataset_shows_that_one_alone(demo: Demo) -> None:
    shown = demo("status", "sample-probes").out
    assert "sample-probes" in shown
    assert "sample-units" not in shown
    assert "neural-pile" not in shown


@pytest.mark.parametrize(
    "source", ["a dataset", "a Parquet file", "a folder of the hub", "a repository", "the pile's repository"]
)
def test_raster_draws_rows_of(demo: Demo, source: str, tmp_path: Path) -> None:
    places = {
        "a dataset": "sample-units",
        "a Parquet file": next((demo.home / "store" / "sample_probes" / "spike_counts").glob("*S2*[0-9].parquet")),
        "a folder of the hub": demo.hub("sample-rates"),
        "a repository": "local/sample-eight-probe",
        "the pile's repository": "local/neural-pile",
    }
    drawn = demo("raster", places[source], "-o", tmp_path / "out.png", "-n", "2")
    assert (drawn.code, drawn.err) == (0, "")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100
        assert len(picture.convert("L").getcolors() or []) > 2


def test_raster_of_the_same_seed_is_the_same_picture(demo: Demo, tmp_path: Path) -> None:
    pictures = []
    for number, seed in enumerate((1, 1, 2)):
        target = tmp_path / f"{number}.png"
        assert demo("raster", "sample-units", "-o", target, "--seed", str(seed), "-n", "1").code == 0
        pictures.append(target.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_part_of_a_dataset_can_be_built_by_a_glob_and_a_limit_into_another_store(demo: Demo, tmp_path: Path) -> None:
    built = neuralpile(
        *("build", "sample-units", "--sessions", "sub-S1*", "--limit", "1"),
        NEURALPILE_HOME=demo.home,
        NEURALPILE_ARCHIVE="sample",
        NEURALPILE_STORE=tmp_path,
        NEURALPILE_NAMESPACE="part",
    )
    assert built.code == 0
    assert built.out.startswith("part/sample-units: 1 session,")
    assert "3 sessions missing" in built.out
    files = list((demo.home / "hub" / "part" / "sample-units" / "data").iterdir())
    assert [pq.read_table(file)["session_id"].to_pylist() for file in files] == [["sub-S1_ses-20200101T120000"]]
