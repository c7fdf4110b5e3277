"""Files written aside by several processes, some of which are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuralpile_dagster import files
from neuralpile_dagster.files import TEMPORARY_PREFIX, write_aside, write_bytes

HALF_WRITTEN = """
import sys
from pathlib import Path
from neuralpile_dagster.files import write_aside
with write_aside(Path(sys.argv[1])) as aside:
    aside.write_bytes(b"slowly")
    print("written", flush=True)
    sys.stdin.read()
"""
MANY_TIMES = """
import sys
from pathlib import Path
from neuralpile_dagster.files import write_bytes
for number in range(300):
    write_bytes(Path(sys.argv[1]), sys.argv[2].encode() * 1000)
"""


@contextmanager
def half_written(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process in the middle of writing; it ends when its input does."""
    command = [sys.executable, "-c", HALF_WRITTEN, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        yield process


def leave(path: Path) -> None:
    """What a writer leaves that is killed."""
    with half_written(path) as process:
        process.send_signal(signal.SIGKILL)
    assert len(temporary_in(path.parent)) == 1


def temporary_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(TEMPORARY_PREFIX)]


def test_what_a_killed_writer_left_goes_with_the_next_write_in_its_folder_whatever_its_name(tmp_path: Path):
    leave(tmp_path / "a")
    write_bytes(tmp_path / "b", b"b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_another_process_is_writing_is_left_to_it(tmp_path: Path):
    with half_written(tmp_path / "a") as process:
        with write_aside(tmp_path / "b") as aside:
            write_bytes(tmp_path / "c", b"c")
            aside.write_bytes(b"b")
        assert len(temporary_in(tmp_path)) == 1
        process.communicate()
    assert process.returncode == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"slowly", "b": b"b", "c": b"c"}


def test_what_belongs_to_another_machine_or_to_nobody_is_never_removed(tmp_path: Path):
    foreign = {f"{TEMPORARY_PREFIX}00000000-{'f' * 32}", f"{TEMPORARY_PREFIX}made-by-hand"}
    for name in foreign:
        (tmp_path / name).mkdir()
    write_bytes(tmp_path / "a", b"a")
    assert set(temporary_in(tmp_path)) == foreign


def test_a_link_that_bears_our_name_leads_nowhere(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    (tmp_path / f"{TEMPORARY_PREFIX}{files._MACHINE}-1").symlink_to(tmp_path / "elsewhere")
    write_bytes(tmp_path / "b", b"b")
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_many_processes_that_write_and_tidy_in_one_folder_do_not_disturb_each_other(tmp_path: Path):
    leave(tmp_path / "a")
    processes = [subprocess.Popen([sys.executable, "-c", MANY_TIMES, str(tmp_path / "a"), letter]) for letter in "abcd"]
    assert [process.wait() for process in processes] == [0] * 4
    assert temporary_in(tmp_path) == []
    assert (tmp_path / "a").read_bytes() in [letter * 1000 for letter in (b"a", b"b", b"c", b"d")]
