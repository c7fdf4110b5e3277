"""Commands that the tests fork are processes like those that are started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from neuralpile_dagster_tests.fixtures.commands import Forked, run, start

SELF = """
import json, os, sys
print(json.dumps([sys.argv, os.getcwd(), dict(os.environ), sys.stdin.read(), sys.path[0], __name__]))
"""


def both(code: str, folder: Path, *arguments: str, **variables: str) -> list[subprocess.CompletedProcess[str]]:
    """What a fork and a fresh process leave behind."""
    command, environment = [sys.executable, "-c", code, *arguments], {**os.environ, **variables}
    fresh = subprocess.run(
        command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return [run(command, environment, folder), fresh]


@pytest.mark.parametrize(
    "code",
    [
        SELF,
        "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)",
        "import sys; sys.exit('a reason')",
        "def f():\n    raise ValueError('mine') from KeyError(1)\nf()",
        "raise KeyboardInterrupt",
        # what a fresh process does at SIGTERM it has from this one, in which another test may have had it ignored
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_DFL); print('before', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)",
        "import atexit, threading, time; atexit.register(print, 'last')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()",
        "class Held:\n    def __del__(self): print('let go')\nheld = Held()",
        "import pickle\nclass Mine: pass\nprint(type(pickle.loads(pickle.dumps(Mine()))))",
        "import os, signal; print([signal.getsignal(k) for k in (signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE)])\n"
        "print(len(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task')))",
        "import sys; print([(s.encoding, s.errors, s.line_buffering) for s in (sys.stdin, sys.stdout, sys.stderr)])",
        "import os, threading; print(threading.main_thread().native_id == os.getpid(), threading.active_count())",
        "print(1 +",
    ],
)
def test_a_fork_says_and_ends_what_a_fresh_process_does(code: str, tmp_path: Path) -> None:
    forked, fresh = both(code, tmp_path, "an argument", A_VARIABLE="a value")
    assert (forked.returncode, forked.stdout, forked.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


def test_a_module_and_a_script_run_as_main(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import sys\nprint(__name__, __file__, sys.argv, sys.path[0])\n")
    for command in (["mine.py", "x"], [str(tmp_path / "mine.py")], ["-m", "mine", "x"]):
        forked = run([sys.executable, *command], os.environ, tmp_path)
        fresh = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (forked.returncode, forked.stdout, forked.stderr) == (0, fresh.stdout, fresh.stderr)


def test_commands_are_forks_unless_a_variable_differs_that_a_library_has_read(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as nowhere:
        for changes, kind in (
            ({}, Forked),
            ({"HF_HOME": "x", "NEURALPILE_HOME": "x", "DAGSTER_HOME": "x", "PATH": "x"}, Forked),
            ({"PYTHONPATH": os.environ.get("PYTHONPATH", "") + os.pathsep + str(tmp_path)}, subprocess.Popen),
            ({"DAGSTER_RECORD_DEFENSIVE_CHECKS": "x"}, subprocess.Popen),
            ({"NUMBA_DISABLE_JIT": "1"}, subprocess.Popen),
        ):
            process = start([sys.executable, "-c", ""], {**os.environ, **changes}, tmp_path, nowhere, nowhere)
            assert process.wait() == 0
            assert isinstance(process, kind), changes


def test_a_fork_that_never_ends_is_killed(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, tmp_path, timeout=0.1)


def test_a_signal_reaches_a_fork(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as nowhere:
        process = start([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, tmp_path, nowhere, nowhere)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        assert process.wait() == process.poll() == -signal.SIGKILL


def test_forks_draw_other_random_numbers(tmp_path: Path) -> None:
    code = "import random, tempfile, uuid, numpy; print(random.random(), uuid.uuid4(), numpy.random.random())"
    first, second = (run([sys.executable, "-c", code], os.environ, tmp_path).stdout.split() for _ in range(2))
    assert not set(first) & set(second)
