"""Local files appear whole or not at all, and what killed writers leave behind does not stay for ever."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path

import pytest
import sqlalchemy
from click.testing import CliRunner

from neuralpile_dagster.cli import _plain_errors as plain_errors
from neuralpile_dagster.cli import main
from neuralpile_dagster.errors import StoreError
from neuralpile_dagster.files import (
    ABANDONED_AFTER_S,
    explained,
    remove_abandoned,
    resource_error,
    temporary_name,
    write_bytes,
)


def _made(path: Path, age_s: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    for each in (path, path.parent):
        os.utime(each, (time.time() - age_s,) * 2)
    return path


def test_the_next_writer_removes_what_killed_ones_left_days_ago(tmp_path: Path):
    old = 2 * ABANDONED_AFTER_S
    file = _made(tmp_path / temporary_name("rows.parquet"), old)
    folder = _made(tmp_path / temporary_name() / "part.parquet", old).parent
    link = tmp_path / temporary_name("link")
    link.symlink_to("nowhere")
    os.utime(link, (time.time() - old,) * 2, follow_symlinks=False)

    write_bytes(tmp_path / "rows.json", b"{}")

    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"], (file, folder, link)


def test_what_may_still_be_written_stays_and_so_does_everything_finished(tmp_path: Path):
    old = 2 * ABANDONED_AFTER_S
    finished = _made(tmp_path / "rows.parquet", old)
    new = _made(tmp_path / temporary_name("rows.parquet"), ABANDONED_AFTER_S / 2)
    growing = _made(tmp_path / temporary_name() / "part.parquet", ABANDONED_AFTER_S / 2)
    os.utime(growing.parent, (time.time() - old,) * 2)  # a folder's own time is that of its last new file

    write_bytes(tmp_path / "rows.json", b"{}")

    assert all(path.is_file() for path in (finished, new, growing))


def test_what_a_person_or_another_program_named_stays(tmp_path: Path):
    names = (".writing-notes.txt", ".writing-abcd1234", ".writing-" + "z" * 32, "neuralpile-upload-1")
    theirs = [_made(tmp_path / name / "file", 2 * ABANDONED_AFTER_S) for name in names]
    remove_abandoned(tmp_path)
    assert all(path.is_file() for path in theirs)


def wrapped_database_error() -> Exception:
    """SQLite's error as SQLAlchemy raises it when it cannot open a file."""
    with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
        sqlalchemy.create_engine("sqlite:////proc/absent/runs.db").connect()
    return caught.value


def test_what_the_machine_lacks_is_said_in_words_by_every_command() -> None:
    lacking = {
        "ulimit -n": OSError(errno.EMFILE, "Too many open files"),
        "ulimit -v": MemoryError("Unable to allocate 8 GiB"),
        "Dagster's databases in the home cannot be used": wrapped_database_error(),
    }
    for words, error in lacking.items():

        @main.command("tried")
        @plain_errors
        def tried(error: Exception = error) -> None:
            raise error

        done = CliRunner().invoke(main, ["tried"])
        assert done.exit_code == 1
        assert words in done.output
        assert "what to do:" in done.output
        assert "Traceback" not in done.output
    del main.commands["tried"]


def test_a_defect_is_not_taken_for_a_machine_that_lacks_something() -> None:
    for defect in (ValueError("x"), OSError(errno.EIO, "x"), sqlite3.OperationalError("no such table: runs")):
        assert resource_error(defect) is None
    assert isinstance(resource_error(sqlite3.OperationalError("database or disk is full")), StoreError)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_while_writing_are_named(tmp_path: Path, number: int) -> None:
    with pytest.raises(StoreError, match="may not open another file"), explained(tmp_path):
        raise OSError(number, os.strerror(number))
