"""What a run prints is in Dagster's files and in the terminal, and no Python is started for that."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from neuralpile_dagster_tests.fixtures.commands import run
from neuralpile_dagster_tests.fixtures.house import instance_of

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="where tail need not be GNU's, Dagster's own class runs"
)
N_LINES = 2_000
LINES = "".join(f"line {number}\n" for number in range(N_LINES))
PRINTING = f"""
import os, sys, time
from pathlib import Path
import dagster as dg
import psutil
from neuralpile_dagster.orchestration.home import open_instance
from neuralpile_dagster.settings import Settings

@dg.asset
def printing():
    for number in range({N_LINES}):
        print("line", number)
    sys.stdout.flush()
    os.write(2, b"from a library\\n")
    assert [child.name() for child in psutil.Process().children()] == ["tail", "tail"]
    time.sleep(1)  # what is printed just before the end may not be shown
    raise ValueError("defect")

home = Path(sys.argv[1])
with open_instance(Settings(home, str(home / "store"))) as instance:
    ran = dg.materialize([printing], instance=instance, raise_on_error=False)
    assert psutil.Process().children() == []
print("after the run")
"""


def files_of_last_run(instance: dg.DagsterInstance) -> tuple[str, str]:
    """What Dagster's own class finds of standard output and standard error."""
    (ran,) = instance.get_runs(limit=1)
    (record,) = instance.get_records_for_run(ran.run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED).records
    event = record.event_log_entry.dagster_event
    assert event is not None
    key = [ran.run_id, "compute_logs", event.logs_captured_data.file_key]
    manager = LocalComputeLogManager(instance.storage_directory())
    assert manager.is_capture_complete(key)
    out, err = ((manager.get_log_data_for_type(key, kind, 0, None)[0] or b"").decode() for kind in ComputeIOType)
    return out, err


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def test_all_that_a_run_prints_is_in_its_files_and_in_the_terminal(home: Path) -> None:
    ran = run([sys.executable, "-c", PRINTING, home], os.environ)
    assert ran.returncode == 0, ran.stderr
    with instance_of(home) as instance:
        out, err = files_of_last_run(instance)
    assert out == LINES
    assert ran.stdout == LINES + "after the run\n"
    assert "from a library\n" in err
    assert "from a library\n" in ran.stderr
    assert "ValueError: defect" in err


def test_a_run_whose_terminal_is_gone_goes_on_and_its_files_are_whole(home: Path) -> None:
    closed = "import os\nread, write = os.pipe()\nos.close(read)\nos.dup2(write, 1)\nos.close(write)\n"
    ran = run(
        [sys.executable, "-c", closed + PRINTING.replace('print("after the run")', "os._exit(7)"), home], os.environ
    )
    assert ran.returncode == 7, ran.stderr
    with instance_of(home) as instance:
        assert files_of_last_run(instance)[0] == LINES
