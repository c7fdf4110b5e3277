"""Readers by name."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from neuralpile_dagster.catalog.readers import all_readers
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.recordings.model import read_session, reader_version


def test_versions_of_readers_stay_so_that_stored_spike_trains_do():
    options = {"binned_series": {"path": "/a", "bin_width_s": "0.001"}}
    assert {name: reader_version(name, options.get(name, {})) for name in all_readers()} == {
        "units": "units-2",
        "binned_series": 'binned-series-1{"bin_width_s": 0.001, "path": ["/a"]}',
        "firing_rates": "firing-rates-2",
        "eight_probe_mat": "eight-probe-mat-1",
    }


def test_other_options_are_another_version_and_defaults_none():
    assert reader_version("units", {"table": "/units"}) == reader_version("units")
    assert reader_version("units", {"table": "/processing/ecephys/units"}) != reader_version("units")


@pytest.mark.parametrize("name", ["units", "binned_series", "firing_rates", "eight_probe_mat"])
def test_the_function_that_a_row_names_is_there(name: str):
    assert callable(pkgutil.resolve_name(all_readers()[name].reads))


def test_an_unknown_reader_and_a_session_without_files_are_refused():
    with pytest.raises(ConfigurationError, match="no reader 'spikes'; expected: one of 'units', 'binned_series'"):
        reader_version("spikes")
    with pytest.raises(ConfigurationError, match="without files"):
        read_session("units", [])


def test_importing_the_readers_and_archives_loads_no_heavy_library():
    code = (
        "import sys, neuralpile_dagster.recordings.model, neuralpile_dagster.archives, "
        "neuralpile_dagster.archives.folder; "
        "print(sorted({'h5py', 'scipy', 'pynwb', 'numba', 'dagster', 'yaml'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
