"""Send the contents of planned files to the Hub's large storage, before any commit names them."""

from __future__ import annotations

import importlib.util
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_session, hf_raise_for_status
from huggingface_hub.utils import build_hf_headers, disable_progress_bars

from neuralpile_dagster.errors import HubConflict, HubUnavailable
from neuralpile_dagster.hub import RepositoryFile
from neuralpile_dagster.net.range_file import RangeFile
from neuralpile_dagster.net.retry import RetryPolicy
from neuralpile_dagster.progress import Progress

CARD = "README.md"
"""Always part of the commit itself, never in large storage."""
_LINE_EVERY_S = 10.0


@dataclass(frozen=True)
class Limits:
    """How much at once, and how often.

    Attributes
    ----------
    plans : int
        How often a publication is planned again after a transient error.
    files_per_commit : int
        Files that one commit may change; more go through a pull request.
    batch_bytes, xet_batch_bytes : int
        Bytes of files that are sent between two questions to the Hub (and lines of progress).
        Xet batches are smaller: of what is going on within one, nothing is told.
    """

    plans: int = 5
    files_per_commit: int = 100
    batch_bytes: int = 1 << 30
    xet_batch_bytes: int = 128 << 20


def has_xet(api: HfApi, repository: str) -> bool:
    """Ask the hub whether this repository's large files can go to a Xet store (else: Git LFS).

    huggingface_hub never asks: where hf_xet is installed it assumes a Xet store, and fails without.
    """
    if constants.HF_HUB_DISABLE_XET or importlib.util.find_spec("hf_xet") is None:
        return False
    url = f"{api.endpoint}/api/datasets/{repository}/xet-write-token/main"
    response = get_session().get(url, headers=build_hf_headers(token=api.token))
    if response.status_code == 404:
        return False
    hf_raise_for_status(response)
    return True


class Reporter:
    """Counts files and bytes that were sent, and says so now and then."""

    def __init__(self, name: str, files: int, size: int, batches: int, progress: Progress) -> None:
        self._name = name
        self._files = files
        self._size = size
        self._batches = batches
        self._progress = progress
        self._began = self._summary_value = time.monotonic()
        self._lock = threading.Lock()
        self.batch = 1
        self.files_done = 0
        self.bytes_sent = 0

    def sent(self, size: int) -> None:
        """Count bytes; called by several threads."""
        with self._lock:
            self.bytes_sent += size
            due = time.monotonic() - self._summary_value >= _LINE_EVERY_S
            if due:
                self._summary_value = time.monotonic()
        if due:
            self.say()

    def say(self) -> None:
        """One line. The seconds show that it is alive where nothing else changes: Xet tells nothing within a batch."""
        self._summary_value = time.monotonic()
        self._progress(
            f"{self._name}: batch {self.batch:,} of {self._batches:,}, "
            f"{self.files_done:,} of {self._files:,} files done, "
            f"{self.bytes_sent:,} of {self._size:,} bytes sent, {self._summary_value - self._began:,.0f} s so far"
        )


class _File(RangeFile):
    """A file that is open only during a read: a batch may have more files than a process may open."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(size)
        self._path = path

    def fill(self, start: int, target: memoryview) -> int:
        """See `RangeFile.fill`."""
        with self._path.open("rb", buffering=0) as file:
            file.seek(start)
            return file.readinto(target)


class SentFile(io.BufferedReader):
    """A file as huggingface_hub reads it while sending, every byte reported.

    That it is an open file and no path makes the library use Git LFS.
    """

    def __init__(self, path: Path, size: int, sent: Callable[[int], None]) -> None:
        super().__init__(_File(path, size))
        self._sent = sent

    def read(self, size: int | None = -1, /) -> bytes:
        """Read and report."""
        block = super().read(size)
        self._sent(len(block))
        return block


def upload(
    api: HfApi,
    repository: str,
    folder: Path,
    files: Sequence[RepositoryFile],
    limits: Limits,
    policy: RetryPolicy,
    progress: Progress,
) -> tuple[list[CommitOperationAdd], int]:
    """Send what the hub does not have yet; give the operations that a commit needs, and the bytes sent.

    Bytes for a Xet store are counted before it finds out which of them it has.
    Raises what huggingface_hub and hf_xet raise.
    """
    if not files:
        return [], 0
    xet = has_xet(api, repository)
    batches = list(_batches(files, limits.xet_batch_bytes if xet else limits.batch_bytes))
    reporter = Reporter(repository, len(files), sum(file.size for file in files), len(batches), progress)
    progress(f"{repository}: sending {len(files):,} files through {'Xet' if xet else 'Git LFS'}")
    operations = []
    for reporter.batch, batch in enumerate(batches, 1):
        additions = [_addition(folder, file, None if xet else reporter.sent) for file in batch]
        if xet:
            # hf_xet has no timeouts of its own
            size = sum(file.size for file in batch)
            timeout_s = policy.attempts * policy.read_timeout_s + size / policy.slowest_bytes_per_s
            _watch(partial(_send, api, repository, additions), timeout_s, repository, reporter)
        else:
            _send(api, repository, additions)
        reporter.sent(sum(file.size for file in batch if xet or file.path == CARD))
        reporter.files_done += len(batch)
        reporter.say()
        operations += additions
    return operations, reporter.bytes_sent


def _send(api: HfApi, repository: str, additions: list[CommitOperationAdd]) -> None:
    with disable_progress_bars():  # we report progress ourselves, as lines that a run's log can hold
        api.preupload_lfs_files(
            repository, additions, repo_type="dataset", revision="main", free_memory=False, num_threads=4
        )


def _watch(send: Callable[[], None], timeout_s: float, repository: str, reporter: Reporter) -> None:
    """Call ``send`` in a thread, report that time passes, and stop waiting after ``timeout_s``.

    hf_xet waits without end for the answer to what it sends last (the list of
    chunks), and tells nothing meanwhile. A thread given up cannot be stopped;
    all it can still do is to store content that nothing refers to.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            send()
        except BaseException as error:  # handed to the thread that waits
            failures.append(error)
            if not isinstance(error, Exception):
                raise

    thread = threading.Thread(target=run, name=f"send to {repository}", daemon=True)
    began = time.monotonic()
    thread.start()
    while thread.is_alive() and (left := began + timeout_s - time.monotonic()) > 0:
        thread.join(min(left, _LINE_EVERY_S))
        if thread.is_alive() and left > _LINE_EVERY_S:
            reporter.say()
    if thread.is_alive():
        raise HubUnavailable(
            f"{repository}: the Xet store did not finish taking files within {timeout_s:,.0f} s",
            remedy="try again; files already uploaded are skipped",
        )
    if failures:
        raise failures[0]


def _addition(folder: Path, file: RepositoryFile, sent: Callable[[int], None] | None) -> CommitOperationAdd:
    path = folder / file.path
    if path.stat().st_size != file.size:
        raise HubConflict(f"{path} changed while it was published", remedy="publish again when nothing writes to it")
    addition = CommitOperationAdd(file.path, path)
    addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # else the file would be read and hashed again
    if sent is not None and file.path != CARD:
        addition.path_or_fileobj = SentFile(path, file.size, sent)
    return addition


def _batches(files: Sequence[RepositoryFile], batch_bytes: int) -> Iterator[list[RepositoryFile]]:
    batch: list[RepositoryFile] = []
    for file in files:
        if batch and sum(f.size for f in batch) + file.size > batch_bytes:
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch
