"""A reader that another package adds: one module and one row, used like the package's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuralpile_dagster.catalog.readers import ENTRY_POINTS, all_readers
from neuralpile_dagster.doctor.machine import plugins
from neuralpile_dagster.errors import CatalogError
from neuralpile_dagster.tables.rows import RowReader
from neuralpile_dagster_tests.fixtures.house import neuralpile

ROW = """
from neuralpile_dagster.catalog.readers import Reader

ROW = Reader(name={name!r}, version={version!r}, text="a text file, one line a unit", reads="text_spikes:read_text")
OTHER = "no reader"
"""
MODULE = """
import numpy as np

from neuralpile_dagster.recordings.model import Recording, SessionFacts, SpikeTrains, Unit


def read_text(file):
    trains = [np.array(line.split(), dtype=float) for line in file.local_path().read_text().splitlines()]
    ends = np.cumsum([len(train) for train in trains])
    units = tuple(Unit(unit_id=number, file=file.name) for number in range(len(trains)))
    return Recording(SpikeTrains(np.concatenate(trains), ends), units, SessionFacts())
"""
SPIKES = "0.01 0.03 0.031\n0.05 0.09\n"
CATALOG = """\
datasets:
  - name: my-text
    title: Spikes as text
    source: {id: "990300", version: draft}
    sessions: {include: ['\\.txt$']}
    reader: text_spikes
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install the other package: two modules and its metadata on the path."""

    def installed(name: str = "text_spikes", version: str = "text-1", point: str = "text_spikes_row:ROW") -> None:
        folder = tmp_path / "site-packages"
        (folder / "text_spikes-1.dist-info").mkdir(parents=True)
        (folder / "text_spikes.py").write_text(MODULE)
        (folder / "text_spikes_row.py").write_text(ROW.format(name=name, version=version))
        about = "Metadata-Version: 2.1\nName: text-spikes\nVersion: 1\n"
        (folder / "text_spikes-1.dist-info" / "METADATA").write_text(about)
        (folder / "text_spikes-1.dist-info" / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ntext = {point}\n")
        monkeypatch.syspath_prepend(folder)
        for module in ("text_spikes", "text_spikes_row"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        all_readers.cache_clear()

    yield installed
    all_readers.cache_clear()


def test_an_added_reader_is_known_without_importing_what_it_reads_with(install: Callable[..., None]) -> None:
    install()
    assert list(all_readers()) == ["units", "binned_series", "firing_rates", "eight_probe_mat", "text_spikes"]
    assert "text_spikes" not in sys.modules


def test_the_doctor_names_what_other_packages_add_and_what_of_it_is_broken(install: Callable[..., None]) -> None:
    install()
    assert plugins().found == "readers: text_spikes"
    all_readers.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["text_spikes_row"], "ROW", 7)
        with pytest.raises(CatalogError, match=r"the reader text .* is invalid"):
            plugins()


def test_bin_reads_with_an_added_reader(install: Callable[..., None], tmp_path: Path) -> None:
    install()
    (tmp_path / "a.txt").write_text(SPIKES)
    ran = neuralpile("bin", tmp_path / "a.txt", "-o", tmp_path / "rows.parquet", "--reader", "text_spikes")
    assert ran.code == 0, ran.err
    with RowReader(tmp_path / "rows.parquet") as rows:
        assert rows.row(0).counts.tolist() == [[1, 2, 0, 0, 0], [0, 0, 1, 0, 1]]


def test_a_catalog_row_with_an_added_reader_is_valid_and_built(install: Callable[..., None], tmp_path: Path) -> None:
    install()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "catalog.yaml").write_text(CATALOG)
    session = tmp_path / "archive" / "990300" / "sub-1" / "ses-1.txt"
    session.parent.mkdir(parents=True)
    session.write_text(SPIKES)
    places = {"NEURALPILE_HOME": tmp_path / "home", "NEURALPILE_ARCHIVE": tmp_path / "archive"}
    checked = neuralpile("catalog", "--check", **places)
    assert checked.code == 0, checked.err
    built = neuralpile("build", "my-text", **places)
    assert built.code == 0, built.out + built.err
    assert "local/my-text: 1 session" in built.out


def test_an_unknown_reader_in_the_catalog_is_answered_with_those_there_are(
    install: Callable[..., None], tmp_path: Path
) -> None:
    install()
    (tmp_path / "catalog.yaml").write_text(CATALOG.replace("reader: text_spikes", "reader: text_spike"))
    ran = neuralpile("catalog", "--check", NEURALPILE_HOME=tmp_path)
    assert ran.code == 1
    assert "row 1 ('my-text'), field reader: there is no reader 'text_spike'" in ran.err
    assert "expected: one of 'units', 'binned_series', 'firing_rates', 'eight_probe_mat', 'text_spikes'" in ran.err
    assert "did you mean 'text_spikes'?" in ran.err


def test_bin_refuses_an_unknown_reader_before_it_looks_at_the_files(tmp_path: Path) -> None:
    ran = neuralpile("bin", tmp_path / "absent.txt", "-o", tmp_path / "rows.parquet", "--reader", "unit")
    assert ran.code == 2
    assert "Invalid value for '--reader': there is no reader 'unit'" in ran.err
    assert "did you mean 'units'?" in ran.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "units"}, "two readers with name 'units'"),
        ({"version": "units-2"}, "two readers with version 'units-2'"),
        ({"point": "text_spikes_row:OTHER"}, r"the reader text \(text_spikes_row:OTHER\) is invalid; found: a str"),
        ({"point": "text_spikes_row:GONE"}, r"text_spikes_row:GONE\) cannot be loaded; found: .*GONE"),
        ({"point": "gone:ROW"}, r"the reader text \(gone:ROW\) cannot be loaded; found: No module named 'gone'"),
    ],
)
def test_a_package_that_adds_a_wrong_reader_is_named(
    install: Callable[..., None], change: dict[str, str], said: str
) -> None:
    install(**change)
    with pytest.raises(CatalogError, match=said) as caught:
        all_readers()
    assert "package that adds it to neuralpile.readers" in str(caught.value)
