"""Local files appear whole or not at all, and what killed writers leave behind does not stay for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path

from neuralpile_dagster.files import ABANDONED_AFTER_S, remove_abandoned, temporary_name, write_bytes


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
