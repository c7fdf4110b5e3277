"""Readers by name."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from neuralpile_dagster.catalog.model import ReaderName
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.recordings.readers import READERS, read_session, reader_version


def test_every_reader_of_the_catalog_has_a_version_of_its_own():
    assert set(READERS) == set(get_args(ReaderName))
    assert len({reader_version(name) for name in READERS}) == len(READERS)


def test_an_unknown_reader_and_a_session_without_files_are_refused():
    with pytest.raises(ConfigurationError, match="no reader 'spikes'; expected: units"):
        reader_version("spikes")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="without files"):
        read_session("units", [])


def test_importing_the_readers_and_archives_loads_no_heavy_library():
    code = (
        "import sys, neuralpile_dagster.recordings.readers, neuralpile_dagster.archives, "
        "neuralpile_dagster.archives.folder, neuralpile_dagster.archives.sample.archive; "
        "print(sorted({'h5py', 'scipy', 'pynwb', 'numba', 'dagster', 'yaml'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
