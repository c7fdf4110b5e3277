"""Adding a dataset is one row: from it come assets, partitions, checks, the README's row and a page."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from neuralpile_dagster.catalog.load import load_catalog, load_piles
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.pages import dataset_page, readme_table
from neuralpile_dagster.checks.registry import CHECKS
from neuralpile_dagster.errors import CatalogError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.orchestration.assets import job_of_assets
from neuralpile_dagster.orchestration.code_location import build_definitions
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.fixtures.house import (
    MICE,
    PILE_HUB_DATASET,
    PILE_MANIFEST,
    PILE_SHARDS,
    SESSIONS,
    House,
    house,
    write_mice,
)
from neuralpile_dagster_tests.fixtures.merging import merge, require

LAYERS = ("manifest", "spike_trains", "spike_counts", "annotations", "hub_dataset")
HEAVY = (
    "numba",
    "scipy",
    "pynwb",
    "h5py",
    "datasets",
    "PIL",
    "dandi",
    "huggingface_hub",
    "pandas",
    "sqlalchemy",
    "urllib3",
    "psutil",
    "pyarrow.compute",
    "torch",
)
ROW = """\
datasets:
  - name: my-mice
    title: My mice
    source: {archive: dandi, id: "990100", version: draft}
    species: mouse
    doi: 10.48324/my.mice
    tokens_published: 12345
    severity: {no_duplicate_spikes: error}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, store=str(tmp_path / "store"))


@pytest.fixture
def graph(settings: Settings) -> dg.AssetGraph:
    """The asset graph with `MICE` alone."""
    return build_definitions(settings, [MICE]).resolve_asset_graph()


def test_the_job_of_a_few_assets_has_their_inputs_and_checks_also_those_that_it_does_not_make(
    settings: Settings,
) -> None:
    (settings.home / "catalog.yaml").write_text("motif_shapes: [[1, 15]]\nvocabulary_sizes: [40]\n")
    rows = list(load_catalog(settings).values())
    piles = [pile for pile in load_piles(settings, rows) if pile.name == "neural-pile"]
    every = build_definitions(settings).resolve_asset_graph()
    few = job_of_assets(settings, rows[:1], piles, rows).asset_layer.asset_graph
    made = few.materializable_asset_keys
    assert made == {key for key in every.materializable_asset_keys if key.path[0] in (rows[0].key, "neural_pile")}
    assert {key: few.get(key).parent_keys for key in made} == {key: every.get(key).parent_keys for key in made}
    assert few.asset_check_keys == {check for check in every.asset_check_keys if check.asset_key in made}


def key(name: str, dataset: str = "tiny_mice") -> dg.AssetKey:
    return dg.AssetKey([dataset, name])


def test_a_row_gets_its_five_assets_in_a_group_of_its_own(graph: dg.AssetGraph) -> None:
    assert {k for k in graph.get_all_asset_keys() if k.path[0] == "tiny_mice"} == {key(layer) for layer in LAYERS}
    assert {graph.get(key(layer)).group_name for layer in LAYERS} == {"tiny_mice"}


def test_a_row_gets_session_partitions_of_its_own(graph: dg.AssetGraph) -> None:
    for layer in ("spike_trains", "spike_counts"):
        partitions = graph.get(key(layer)).partitions_def
        assert isinstance(partitions, dg.DynamicPartitionsDefinition)
        assert partitions.name == "tiny_mice_sessions"
    assert graph.get(key("manifest")).partitions_def is None
    assert graph.get(key("hub_dataset")).partitions_def is None


def test_data_only_moves_forward(graph: dg.AssetGraph) -> None:
    parents = {layer: {parent.path[-1] for parent in graph.get(key(layer)).parent_keys} for layer in LAYERS}
    assert parents == {
        "manifest": set(),
        "spike_trains": {"manifest"},
        "spike_counts": {"spike_trains"},
        "annotations": {"manifest"},
        "hub_dataset": {"manifest", "spike_counts"},
    }
    assert key("hub_dataset") in graph.get(dg.AssetKey(["neural_pile", "manifest"])).parent_keys


def test_a_row_gets_every_check_of_the_table_on_the_asset_that_it_names(graph: dg.AssetGraph) -> None:
    mine = {(k.asset_key.path[1], k.name) for k in graph.asset_check_keys if k.asset_key.path[0] == "tiny_mice"}
    of_datasets = ("manifest", "spike_counts", "hub_dataset")
    assert mine == {(check.layer, name) for name, check in CHECKS.items() if check.layer in of_datasets}


def test_the_assets_say_what_they_are_where_from_and_in_which_code_version(graph: dg.AssetGraph) -> None:
    for layer in LAYERS:
        node = graph.get(key(layer))
        assert MICE.title in (node.description or "")
        assert "dandi 990100" in (node.description or "")
        assert node.kinds
        assert node.code_version
        assert node.tags["layer"] == layer
        assert node.metadata["source"].value == MICE.source.url


def test_a_row_gets_a_line_of_the_readme_and_a_page() -> None:
    assert "[tiny-mice](docs/datasets/tiny-mice.md)" in readme_table([MICE])
    page = dataset_page(MICE)
    for fact in (MICE.title, "990100", "neuralpile build tiny-mice", "10.48324/tiny.mice", "12,345"):
        assert fact in page, fact


@dataclass(frozen=True)
class Extended:
    """The package's catalog with a user's row, and all assets that come of it."""

    settings: Settings
    rows: Mapping[str, Dataset]
    keys: Set[dg.AssetKey]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Extended:
    home = tmp_path_factory.mktemp("extended")
    write_mice(home / "archive")
    (home / "catalog.yaml").write_text(ROW)
    settings = Settings(home=home, store=str(home / "store"), archive=str(home / "archive"))
    keys = build_definitions(settings).resolve_asset_graph().get_all_asset_keys()
    return Extended(settings, load_catalog(settings), keys)


def test_a_row_of_a_users_catalog_becomes_a_component_without_touching_the_package(extended: Extended) -> None:
    assert {key(layer, "my_mice") for layer in LAYERS} <= extended.keys
    row, home = extended.rows["my-mice"], extended.settings.home
    with house(home, home / "archive", [row]) as made:
        require(made.batch(made.discover(row), row))
        require(made.run(key("hub_dataset", "my_mice"), checks=False))
        assert made.made(key("spike_counts", "my_mice")) == set(SESSIONS)
        assert (made.hub_folder("my-mice") / "README.md").is_file()


def test_a_users_row_with_a_severity_for_no_check_stops_the_definitions_and_says_why(settings: Settings) -> None:
    (settings.home / "catalog.yaml").write_text(ROW.replace("no_duplicate_spikes", "no_doubles"))
    with pytest.raises(CatalogError, match=r"row my-mice, field severity: there is no check 'no_doubles'"):
        build_definitions(settings)


def test_all_datasets_of_the_catalog_have_the_assets_of_the_contract(extended: Extended) -> None:
    keys, rows = extended.keys, {name: row for name, row in extended.rows.items() if name != "my-mice"}
    assert len(rows) == 43
    expected = {key(layer, row.key) for row in rows.values() for layer in LAYERS}
    assert expected - keys == {key("annotations", "steinmetz_2")}, "a MATLAB file states no intervals"
    for pile in ("neural_pile", "neural_pile_primate"):
        assert {dg.AssetKey([pile, name]) for name in ("manifest", "shards", "hub_dataset")} <= keys


def test_loading_the_definitions_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys, neuralpile_dagster.definitions as d; d.defs.resolve_asset_graph(); "
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    environment = {**os.environ, "NEURALPILE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == ""


@pytest.fixture(scope="module")
def ran(built: House) -> Iterator[dict[str, dg.EventLogEntry | None]]:
    """The last materialization of each asset of the built mice and of their pile."""
    merge(built)
    keys = {layer: key(layer) for layer in LAYERS} | {
        "neural_pile/manifest": PILE_MANIFEST,
        "neural_pile/shards": PILE_SHARDS,
        "neural_pile/hub_dataset": PILE_HUB_DATASET,
    }
    yield {name: built.instance.get_latest_materialization_event(asset) for name, asset in keys.items()}


EVERYWHERE = {"bytes", "seconds", "dagster/uri"}
NUMBERS = {"tokens", "units", "bins", "spikes"}
VALUES = {
    "token_statistics",
    "token_counts",
    "token_counts_table",
    "share_of_zeros",
    "spikes_per_token",
    "bits_per_token",
    "tokens_per_hour",
}
LOSSES = {"spikes_dropped", "spikes_saturated", "saturated_bins"}
CONTRACT = {
    "manifest": {"sessions", "subjects", "files_dropped", "source_version", "sessions_table", "session_rule", "reader"},
    "spike_trains": {"units", "spikes", "source_version", "dagster/column_schema"},
    "spike_counts": NUMBERS
    | LOSSES
    | {"raster", "source_version", "dagster/column_schema", "dagster/partition_row_count"},
    "hub_dataset": NUMBERS
    | LOSSES
    | VALUES
    | {"sessions", "subjects", "rasters", "sessions_table", "missing_sessions", "source_version"}
    | {"published_at", "dagster/row_count", "dagster/column_schema"},
    "neural_pile/manifest": NUMBERS | {"sessions", "rows", "source_versions"},
    "neural_pile/shards": {"tokens", "sessions", "source_version", "dagster/partition_row_count"}
    | {"rows_of_components", "dagster/column_schema"},
    "neural_pile/hub_dataset": NUMBERS
    | VALUES
    | {"sessions", "rasters", "source_versions", "published_at", "dagster/row_count", "dagster/column_schema"},
}


@pytest.mark.parametrize("name", CONTRACT)
def test_every_materialization_has_the_numbers_of_the_contract(name: str, ran: dict[str, dg.EventLogEntry]) -> None:
    event = ran[name].asset_materialization
    assert event is not None
    assert (CONTRACT[name] | EVERYWHERE) - event.metadata.keys() == set()


def token_counts(event: dg.AssetMaterialization) -> dict[str, list[int]]:
    """How many tokens of each split have each of the values from 0 to 9, and a larger one."""
    table = event.metadata["token_counts"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = [dict(record.data) for record in table.records]
    assert [row.pop("tokens of value") for row in rows] == [*map(str, range(10)), "10 to 255"]
    return {split: [int(str(row[split]).replace(",", "")) for row in rows] for split in rows[0]}


@pytest.mark.parametrize("name", ["hub_dataset", "neural_pile/hub_dataset"])
def test_the_page_of_a_publication_counts_values_in_few_rows_and_names_the_table_of_all(
    name: str, ran: dict[str, dg.EventLogEntry]
) -> None:
    event = ran[name].asset_materialization
    assert event is not None
    whole = pq.read_table(str(event.metadata["token_counts_table"].value)).to_pydict()
    rows = list(zip(whole["split"], whole["value"], whole["count"], strict=True))
    assert {value for _, value, _ in rows} == set(range(256))
    for split, counts in token_counts(event).items():
        stated = [count for part, _, count in rows if part == split]
        assert counts == [*stated[:10], sum(stated[10:])]


def test_the_pile_has_the_numbers_of_its_only_component(ran: dict[str, dg.EventLogEntry]) -> None:
    component = ran["hub_dataset"].asset_materialization
    assert component is not None
    for name in ("neural_pile/manifest", "neural_pile/hub_dataset"):
        pile = ran[name].asset_materialization
        assert pile is not None
        assert {number: pile.metadata[number].value for number in NUMBERS} == {
            number: component.metadata[number].value for number in NUMBERS
        }
        if name == "neural_pile/hub_dataset":
            (ours,) = token_counts(component).values()
            splits = token_counts(pile)
            assert splits.keys() == {"train", "test"}
            assert [sum(counts) for counts in zip(*splits.values(), strict=True)] == ours
            assert sum(ours) == component.metadata["tokens"].value
            assert ours[-1] == 0, "all values have a row of their own"
            assert sum(value * count for value, count in enumerate(ours)) == component.metadata["spikes"].value
        assert pile.metadata["source_versions"].value == {MICE.name: component.metadata["source_version"].value}


def test_tokens_are_integers_so_that_the_ui_plots_them(ran: dict[str, dg.EventLogEntry]) -> None:
    for layer in ("spike_counts", "hub_dataset"):
        event = ran[layer].asset_materialization
        assert event is not None
        assert isinstance(event.metadata["tokens"], dg.IntMetadataValue)


def test_data_versions_come_from_the_content(built: House, ran: dict[str, dg.EventLogEntry]) -> None:
    event = ran["spike_counts"].asset_materialization
    assert event is not None
    assert event.tags is not None
    record = documents.read_counts_record(built.store, MICE, built.settings, str(event.partition))
    assert record is not None
    assert event.tags["dagster/data_version"] == record.file.sha256[:32]


def test_a_raster_is_a_picture_small_enough_for_the_event_log(ran: dict[str, dg.EventLogEntry]) -> None:
    for layer, name, limit in (("spike_counts", "raster", 30_000), ("hub_dataset", "rasters", 150_000)):
        event = ran[layer].asset_materialization
        assert event is not None
        value = event.metadata[name].value
        assert isinstance(value, str)
        assert "](data:image/png;base64," in value
        assert len(value) < limit


def test_no_setting_can_be_edited_in_the_configuration_of_a_run(settings: Settings) -> None:
    job = build_definitions(settings, [MICE]).resolve_implicit_global_asset_job_def()
    resources = job.run_config_schema.config_type.fields["resources"].config_type.fields
    assert set(resources) == {"instance", "io_manager"}, "io_manager: Dagster's own, which no asset of ours uses"
    assert resources["instance"].config_type.fields["config"].config_type.fields == {}


def test_a_run_of_an_earlier_version_that_names_settings_is_refused_by_their_names(settings: Settings) -> None:
    job = build_definitions(settings, [MICE]).resolve_implicit_global_asset_job_def()
    old = {"resources": {"instance": {"config": {"home": "/elsewhere", "bin_width_s": 0.5}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match=r"bin_width_s.*root:resources:instance:config"):
        dg.validate_run_config(job, old)


def test_dg_finds_the_definitions_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["dg"]
    assert project["directory_type"] == "project"
    module = importlib.import_module(project["project"]["code_location_target_module"])
    assert isinstance(module.defs, dg.Definitions)
    assert module.__name__.startswith(project["project"]["root_module"])


def test_assets_link_to_the_code_that_makes_them_and_manifests_are_to_be_fresh(graph: dg.AssetGraph) -> None:
    for layer in LAYERS:
        (reference,) = graph.get(key(layer)).metadata["dagster/code_references"].code_references
        line = Path(reference.file_path).read_text().splitlines()[reference.line_number - 1]
        assert line.startswith("def ") and "asset" in line
    policy = graph.get(key("manifest")).freshness_policy
    assert policy is not None
    assert policy == dg.FreshnessPolicy.time_window(timedelta(days=90), timedelta(days=30))
