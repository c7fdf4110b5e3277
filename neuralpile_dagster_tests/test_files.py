"""Local files appear whole or not at all, and what killed writers leave behind does not stay for ever."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import time
from pathlib import Path
from typing import BinaryIO

import pytest
import sqlalchemy
from click.testing import CliRunner

from neuralpile_dagster import files
from neuralpile_dagster.cli import main
from neuralpile_dagster.cli.common import plain_errors
from neuralpile_dagster.errors import DiskFull, StoreError
from neuralpile_dagster.files import (
    ABANDONED_AFTER_S,
    atomic_write,
    explained,
    file_lock,
    locked,
    remove_abandoned,
    resource_error,
    sha256_of,
    sha256_once,
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


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.EACCES, StoreError, "cannot be written.*change the folder's permissions"),
        (errno.EROFS, StoreError, "cannot be written.*a writable folder: .*, or as the command's output"),
        (errno.ENOTDIR, StoreError, "cannot be written.*a writable folder"),
        (errno.ENOSPC, DiskFull, "the disk became full.*bytes free"),
        (errno.EDQUOT, DiskFull, "the disk became full.*bytes free"),
    ],
)
def test_what_the_disk_refuses_is_said_in_words(
    tmp_path: Path, number: int, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words), explained(tmp_path / "x"):
        raise OSError(number, os.strerror(number))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), atomic_write(tmp_path / "a") as temporary:
        temporary.write_bytes(b"half")
        raise ValueError("x")
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_240_characters_can_be_written(tmp_path: Path) -> None:
    write_bytes(tmp_path / ("x" * 240), b"content")


def test_temporaries_of_other_users_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _made(tmp_path / temporary_name("rows.parquet"), 2 * ABANDONED_AFTER_S)
    monkeypatch.setattr(os, "getuid", lambda: file.stat().st_uid + 1)
    remove_abandoned(tmp_path)
    assert file.is_file()


def test_a_temporary_that_another_process_removed_meanwhile_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        _made(tmp_path / temporary_name(), 2 * ABANDONED_AFTER_S)
    last_written, gone = files._last_written, []

    def vanishing(path: Path) -> float:
        if not gone:
            gone.append(path)
            path.unlink()
        return last_written(path)

    monkeypatch.setattr(files, "_last_written", vanishing)
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_an_old_link_to_a_folder_only_the_link_is_removed(tmp_path: Path) -> None:
    file = _made(tmp_path / "kept" / "a", 2 * ABANDONED_AFTER_S)
    link = tmp_path / temporary_name()
    link.symlink_to(file.parent)
    os.utime(link, (time.time() - 2 * ABANDONED_AFTER_S,) * 2, follow_symlinks=False)
    remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert file.is_file()


def test_waiting_for_a_lock_is_reported(tmp_path: Path) -> None:
    other, said = file_lock(tmp_path / "lock"), []

    def progress(line: str) -> None:
        said.append(line)
        other.release()

    other.acquire()
    with locked(tmp_path / "lock", progress, "it is being made"):
        pass
    assert said == ["waiting for another process: it is being made"]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose digests were made, one for each time."""
    names, digest = list[str](), hashlib.file_digest

    def noted(file: BinaryIO, algorithm: str) -> object:
        names.append(Path(file.name).name)
        return digest(file, algorithm)

    monkeypatch.setattr(files.hashlib, "file_digest", noted)
    monkeypatch.setattr(files, "CLOCK_STEP_NS", -(10**9))  # every file counts as written to long ago
    return names


def test_the_digest_of_a_file_that_nobody_changed_is_read_once_by_whatever_name(tmp_path: Path, read: list[str]):
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"content")
    os.link(path, other)
    assert sha256_once(path) == sha256_once(other) == sha256_once(path) == hashlib.sha256(b"content").hexdigest()
    assert read == ["a"]


def test_a_file_that_was_written_to_or_replaced_is_read_again(tmp_path: Path, read: list[str]):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    before = path.stat()
    sha256_once(path)
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert sha256_once(path) == hashlib.sha256(b"CONTENT").hexdigest()
    write_bytes(path, b"replace")
    assert sha256_once(path) == sha256_of(path)
    assert read == ["a"] * 4


def test_a_file_that_was_written_a_moment_ago_is_read_again(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(files, "CLOCK_STEP_NS", 10**12)
    (tmp_path / "a").write_bytes(b"content")
    assert sha256_once(tmp_path / "a") == sha256_once(tmp_path / "a")
    assert read == ["a"] * 2
