"""An analysis that another package adds: an asset per dataset, listed and built like the package's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.errors import CatalogError
from neuralpile_dagster.ledger import documents
from neuralpile_dagster.ledger.analyses import (
    ENTRY_POINTS,
    Analysis,
    all_analyses,
)
from neuralpile_dagster.ledger.due import AnalysisStanding, analysis_standing
from neuralpile_dagster.orchestration import names
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.orchestration.sensors import current_sensor
from neuralpile_dagster_tests.fixtures.house import MICE, House, failure_of, neuralpile, trains_of
from neuralpile_dagster_tests.servers.nwb_files import write_units_nwb

PACKAGE = '''
"""Spikes of the busiest unit of each session, as somebody else's package would add it."""
from pathlib import Path

from neuralpile_dagster.errors import RecordingError
from neuralpile_dagster.ledger.analyses import Analysis, AnalysisRecord
from neuralpile_dagster.tables.rows import RowReader


class BusiestUnit(AnalysisRecord):
    spikes: int


def make(task):
    if Path({broken!r}).exists() and task.session.key in Path({broken!r}).read_text():
        raise RecordingError(f"{{task.session.session_id}} has no busiest unit", remedy="mend it")
    with task.store.open(task.counts.file.key) as stream:
        reader = RowReader(stream, task.counts.file.key)
        spikes = max(int(reader.row(n).counts.sum(axis=1).max()) for n in range(reader.n_rows))
    return BusiestUnit(inputs=task.inputs, session_id=task.session.session_id, spikes=spikes)


ROW = Analysis(
    name="busiest_unit",
    text="Spikes of the busiest unit",
    badges=frozenset({{"json"}}),
    version="1",
    made_from="spike_counts",
    record=BusiestUnit,
    make=make,
    numbers=lambda record: {{"spikes": record.spikes}},
    wanted=lambda dataset: dataset.name == "tiny-mice",
)
'''

FOURTH = "sub-C_ses-4"


def row(name: str) -> Analysis:
    """The analysis of that name."""
    return next(analysis for analysis in all_analyses() if analysis.name == name)


def standing_of(house: House) -> AnalysisStanding:
    """State of the added analysis."""
    manifest = documents.read_manifest(house.store, MICE)
    return analysis_standing(house.store, MICE, house.settings, row("busiest_unit"), manifest)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file with keys of sessions that the analysis refuses."""
    return tmp_path / "broken.txt"


@pytest.fixture
def added(tmp_path: Path, broken: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.AssetKey]:
    """The other package, installed: a module and its metadata on the path."""
    folder = tmp_path / "site-packages"
    (folder / "busiest-1.dist-info").mkdir(parents=True)
    (folder / "busiest_unit_analysis.py").write_text(PACKAGE.format(broken=str(broken)))
    (folder / "busiest-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: busiest\nVersion: 1\n")
    points = f"[{ENTRY_POINTS}]\nbusiest_unit = busiest_unit_analysis:ROW\n"
    (folder / "busiest-1.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "busiest_unit_analysis", raising=False)
    all_analyses.cache_clear()
    yield names.asset_key(MICE, row("busiest_unit"))
    all_analyses.cache_clear()


@pytest.fixture
def made(added: dg.AssetKey, built_house: Callable[..., House]) -> House:
    """Three sessions that were built before the analysis was added."""
    return built_house()


def test_one_broken_session_of_four_costs_only_itself_and_is_made_alone_later(
    made: House, added: dg.AssetKey, broken: Path
) -> None:
    write_units_nwb(made.archive / MICE.source.folder / "sub-C" / f"{FOURTH}.nwb", trains_of(4))
    keys = made.discover()
    assert made.batch([FOURTH]).success
    broken.write_text(keys[1])
    result = made.run(added, partitions=keys)
    assert made.made(added) == set(keys) - {keys[1]}
    assert "1 of 4 sessions of tiny-mice busiest_unit failed; the others are done" in failure_of(result)
    standing = standing_of(made)
    assert (standing.done, list(standing.failed), standing.due) == (3, [keys[1]], {})
    broken.unlink()
    again = made.run(added, partitions=[keys[1]])
    assert again.success
    assert made.made(added) == set(keys)
    standing = standing_of(made)
    assert (standing.done, standing.failed, standing.due) == (4, {}, {})
    assert documents.read_failures(made.store, MICE, made.settings) == {}, "a failed analysis is no failed session"


def test_the_numbers_of_a_record_are_in_the_ui_and_what_is_current_is_not_made_again(
    made: House, added: dg.AssetKey
) -> None:
    keys = made.discover()
    assert made.run(added, partitions=keys).success
    result = made.run(added, partitions=keys)
    facts = [event.materialization.metadata for event in result.all_events if event.is_step_materialization]
    assert [fact["reused"].value for fact in facts] == [True] * 3
    assert all(fact["spikes"].value > 0 for fact in facts)  # type: ignore[operator]


def test_the_sensor_asks_for_what_is_missing(made: House, added: dg.AssetKey) -> None:
    resources = {"instance": InstanceResource(made.settings)}
    with dg.build_sensor_context(instance=made.instance, resources=resources) as context:
        result = current_sensor([MICE], [NEURAL_PILE])(context)
    assert isinstance(result, dg.SensorResult)
    assert result.run_requests is not None
    assert [added] in [request.asset_selection for request in result.run_requests]


def test_the_command_line_builds_it_and_annotations_on_request_and_says_where_they_stand(
    added: dg.AssetKey, new_archive: Callable[[], Path], broken: Path, tmp_path: Path
) -> None:
    archive = new_archive()
    home = tmp_path / "home"
    home.mkdir()
    source = f"{{archive: dandi, id: '{MICE.source.id}', version: draft}}"
    (home / "catalog.yaml").write_text(f"datasets:\n  - {{name: tiny-mice, title: Mice, source: {source}}}\n")
    places = {"NEURALPILE_HOME": home, "NEURALPILE_ARCHIVE": archive}
    broken.write_text("sub-A_ses-2")
    built = neuralpile("build", "tiny-mice", **places)
    assert built.code == 1
    assert "tiny-mice busiest_unit sub-A_ses-2: sub-A_ses-2 has no busiest unit" in built.out + built.err
    assert "local/tiny-mice: 3 sessions" in built.out, "a failed analysis does not stop the publication"
    status = neuralpile("status", "tiny-mice", **places).out
    assert "tiny-mice busiest_unit: 2 done, 1 failed, 0 to do" in status
    assert "tiny-mice annotations: 0 done, 0 failed, 3 to do (neuralpile build tiny-mice --annotations)" in status
    broken.unlink()
    assert neuralpile("build", "tiny-mice", "--limit", "2", "--annotations", **places).code == 0
    status = neuralpile("status", "tiny-mice", **places).out
    assert "tiny-mice busiest_unit: 3 done, 0 failed, 0 to do" in status
    assert "tiny-mice annotations: 2 done, 0 failed, 1 to do" in status


@pytest.mark.parametrize(
    ("value", "said"), [("no_such_module:ROW", "cannot be loaded"), ("json:dumps", "is invalid; found: a function")]
)
def test_a_package_whose_analysis_cannot_be_used_is_named(
    added: dg.AssetKey, tmp_path: Path, value: str, said: str
) -> None:
    points = tmp_path / "site-packages" / "busiest-1.dist-info" / "entry_points.txt"
    points.write_text(f"[{ENTRY_POINTS}]\nbusiest_unit = {value}\n")
    all_analyses.cache_clear()
    with pytest.raises(CatalogError, match=said) as caught:
        all_analyses()
    assert "busiest_unit" in str(caught.value)


def test_two_kinds_of_asset_of_one_name_are_refused(added: dg.AssetKey, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuralpile_dagster.ledger import analyses

    monkeypatch.setattr(analyses, "BUILT_IN", (row("busiest_unit"),))
    all_analyses.cache_clear()
    with pytest.raises(CatalogError, match="busiest_unit"):
        all_analyses()
