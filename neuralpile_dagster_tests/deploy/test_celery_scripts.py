"""What the scripts of deploy/celery share; `test_workers` runs them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

LIB = Path(__file__).parents[2] / "deploy" / "celery" / "lib.sh"


def is_running(home: Path, process: int, born: str) -> bool:
    """Whether the process that a file of ``home`` names is running, by its id and the time of its start."""
    file = home / "run" / "some" / "pid"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{process} {born}\n")
    done = subprocess.run(["bash", "-c", f". {LIB}; is_running some"], env={**os.environ, "NEURALPILE_HOME": str(home)})
    return done.returncode == 0


def test_a_process_that_has_ended_is_not_running_though_its_parent_has_not_collected_it(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    born = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    assert is_running(tmp_path, process.pid, born)
    assert not is_running(tmp_path, process.pid, f"{born}0"), "another with its id, after a reboot"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}/stat").exists()
    assert not is_running(tmp_path, process.pid, born)
    process.wait()
