"""Datasets behind filters of HDF5 plugins, read remotely; the plugins are loaded only for a file that needs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hdf5plugin
import numpy as np
import pytest

from neuralpile_dagster.errors import DamagedRecording
from neuralpile_dagster.recordings.model import read_session
from neuralpile_dagster_tests.fixtures.bucket import Bucket, assert_same, dataset, ranged, write
from neuralpile_dagster_tests.fixtures.reading import assert_same as assert_same_trains
from neuralpile_dagster_tests.fixtures.reading import trains_of
from neuralpile_dagster_tests.servers.http import Server
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

TRAINS = poisson_trains(20, 600)


@pytest.mark.parametrize("options", [hdf5plugin.Zstd(), hdf5plugin.Blosc()], ids=lambda options: type(options).__name__)
def test_a_dataset_compressed_by_a_plugin_is_read_as_h5py_reads_it(
    bucket_server: Server, bucket: Bucket, options: hdf5plugin.Zstd
):
    write(bucket.path, dataset(chunks=(30_000,), **options))
    assert_same(bucket_server)


def test_a_session_compressed_by_a_plugin_is_read_by_ranges(bucket_server: Server, bucket: Bucket):
    write_units_nwb(bucket.path, TRAINS, chunks=(5_000,), compression=hdf5plugin.Zstd())
    with ranged(bucket_server) as opened:
        assert_same_trains(trains_of(read_session("units", [opened])), TRAINS)


def test_a_web_page_in_place_of_a_remote_file_is_named(bucket_server: Server, bucket: Bucket):
    bucket.path.write_text("<html>Sign in</html>")
    with ranged(bucket_server) as opened, pytest.raises(DamagedRecording, match="an HTML page of 20 bytes"):
        opened.hdf5()


def test_plugins_are_loaded_by_a_process_of_its_own_and_only_when_needed(tmp_path: Path):
    plain = write_units_nwb(tmp_path / "plain.nwb", TRAINS, chunks=(5_000,), compression="gzip")
    packed = write_units_nwb(tmp_path / "packed.nwb", TRAINS, chunks=(5_000,), compression=hdf5plugin.Blosc())
    program = f"""
import sys
import neuralpile_dagster.cli
assert "h5py" not in sys.modules
from pathlib import Path
from neuralpile_dagster.hdf5.opened import LocalFile
from neuralpile_dagster.recordings.model import read_session
read_session("units", [LocalFile("plain", Path({str(plain)!r}))])
assert "hdf5plugin" not in sys.modules
print(read_session("units", [LocalFile("packed", Path({str(packed)!r}))]).data.spike_times.sum())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) == np.concatenate(TRAINS).sum()
