"""Every fault of a network, in both kinds of access: right counts or a clear error, and a re-run works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralpile_dagster.archives.model import Access, ArchiveFile
from neuralpile_dagster.errors import ArchiveError, ArchiveUnavailable, DigestMismatch, NeuralPileError
from neuralpile_dagster_tests.fixtures.archives import (
    BLOBS,
    archive_of,
    limits_for,
    only_file,
    read_counts,
    serve_session,
    write_session,
)
from neuralpile_dagster_tests.servers.dandi_server import DandiServer, dandi_server
from neuralpile_dagster_tests.servers.faults import Fault, status

ALWAYS = 10_000
API = r"^/api/"
# fault -> error when it never ends; None: the session succeeds all the same
PASSING: dict[str, tuple[dict[str, Any], type[NeuralPileError]]] = {
    "408": ({"kind": "status", "status": 408}, ArchiveUnavailable),
    "500": ({"kind": "status", "status": 500}, ArchiveUnavailable),
    "503": ({"kind": "status", "status": 503}, ArchiveUnavailable),
    "520": ({"kind": "status", "status": 520}, ArchiveUnavailable),
    "503 with Retry-After": ({"kind": "status", "status": 503, "headers": (("Retry-After", "1"),)}, ArchiveUnavailable),
    "429 with Retry-After": ({"kind": "status", "status": 429, "headers": (("Retry-After", "1"),)}, ArchiveUnavailable),
    "429 with nonsense": ({"kind": "status", "status": 429, "headers": (("Retry-After", "soon"),)}, ArchiveUnavailable),
    "reset": ({"kind": "reset"}, ArchiveUnavailable),
    "reset in mid-body": ({"kind": "reset_mid_body"}, ArchiveUnavailable),
    "short body": ({"kind": "short_body"}, ArchiveUnavailable),
    "short body without length": ({"kind": "short_unmarked"}, ArchiveUnavailable),
    "silence": ({"kind": "hang"}, ArchiveUnavailable),
    "silence in mid-body": ({"kind": "hang_mid_body"}, ArchiveUnavailable),
}
REFUSING: dict[str, tuple[dict[str, Any], type[NeuralPileError]]] = {
    "401": ({"kind": "status", "status": 401}, ArchiveError),
    "404": ({"kind": "status", "status": 404}, ArchiveError),
    "expired URL": ({"kind": "status", "status": 403}, ArchiveError),
    "stale ETag": ({"kind": "status", "status": 412}, ArchiveError),
}


# a status is judged alike wherever it comes: each comes once at the beginning or once in the middle of a session
PLACES = [
    (name, skip)
    for names in (PASSING, REFUSING)
    for number, (name, (fields, _)) in enumerate(names.items())
    for skip in ((0, 2)[number % 2 :][:1] if fields["kind"] == "status" else (0, 2))
]


def assert_right(
    served: DandiServer, folder: Path, access: Access, right: np.ndarray, file: ArchiveFile | None = None
) -> None:
    found, _ = read_counts(archive_of(served, folder), access, file)
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("access", ["ranges", "download"])
@pytest.mark.parametrize(("name", "skip"), PLACES)
def test_a_fault_that_passes_leaves_the_counts_right(
    served: DandiServer, right: np.ndarray, tmp_path: Path, name: str, skip: int, access: Access
):
    fields, _ = (PASSING | REFUSING)[name]
    archive = archive_of(served, tmp_path, limits=limits_for(name))
    file = only_file(archive)
    served.faults.add(Fault(path=BLOBS, skip=skip, **fields))
    found, cost = read_counts(archive, access, file)
    assert len(served.faults.struck) == 1
    np.testing.assert_array_equal(found, right)
    assert cost.retries >= 1
    assert cost.requests >= 2
    assert cost.seconds > 0


@pytest.mark.parametrize("access", ["ranges", "download"])
@pytest.mark.parametrize(("name", "skip"), PLACES)
def test_a_fault_that_lasts_is_a_clear_error_and_a_re_run_works(
    served: DandiServer, right: np.ndarray, tmp_path: Path, name: str, skip: int, access: Access
):
    fields, kind = (PASSING | REFUSING)[name]
    archive = archive_of(served, tmp_path, limits=limits_for(name))
    file = only_file(archive)
    # the beginning of each body arrives, and with it an advance: only requests without any are bounded
    served.faults.add(Fault(path=BLOBS, skip=skip, times=ALWAYS, **fields))
    try:
        found, _ = read_counts(archive, access, file)
    except NeuralPileError as error:
        assert isinstance(error, kind)
        assert isinstance(error, ArchiveUnavailable) == (name in PASSING)
        assert file.path in str(error)
        assert "found:" in str(error)
        assert "what to do:" in str(error)
    else:  # bodies cut in half arrive in the end, a half at a time
        assert "body" in name
        np.testing.assert_array_equal(found, right)
    served.faults.clear()
    assert_right(served, tmp_path, access, right, file)


@pytest.mark.parametrize("name", PASSING)
def test_a_listing_survives_a_fault_of_the_api(served: DandiServer, tmp_path: Path, name: str):
    fields, _ = PASSING[name]
    archive = archive_of(served, tmp_path, limits=limits_for(name))
    expected = only_file(archive)
    for path in (r"/990002/$", r"/versions/[\d.]+/$", r"/assets/\?"):
        served.faults.add(Fault(path=path, **fields))
    assert only_file(archive) == expected
    assert len(served.faults.struck) == 3


@pytest.mark.parametrize("name", PASSING | {"401": REFUSING["401"], "404": REFUSING["404"]})
def test_an_api_that_stays_out_of_order_is_a_clear_error_and_a_re_run_works(
    served: DandiServer, tmp_path: Path, name: str
):
    fields, kind = (PASSING | REFUSING)[name]
    archive = archive_of(served, tmp_path, limits=limits_for(name))
    served.faults.add(Fault(path=API, times=ALWAYS, **fields))
    with pytest.raises(kind, match=r"dandi 990002 .*/api; .*what to do:") as caught:
        only_file(archive)
    assert isinstance(caught.value, ArchiveUnavailable) == (name in PASSING)
    served.faults.clear()
    assert only_file(archive).size > 0


def test_flipped_bytes_in_a_download_are_noticed_and_fetched_again(
    served: DandiServer, right: np.ndarray, tmp_path: Path
):
    served.faults.add(Fault("flip", path=BLOBS))
    assert_right(served, tmp_path, "download", right)
    assert len(served.faults.struck) == 1


def test_a_download_whose_bytes_stay_wrong_is_never_accepted(served: DandiServer, right: np.ndarray, tmp_path: Path):
    served.faults.add(Fault("flip", path=BLOBS, times=ALWAYS))
    for _ in range(2):
        with pytest.raises(DigestMismatch, match="sha256"):
            read_counts(archive_of(served, tmp_path), "download")
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size]
    served.faults.clear()
    assert_right(served, tmp_path, "download", right)


def test_flipped_bytes_in_compressed_chunks_are_fetched_again(right: np.ndarray, tmp_path: Path):
    with dandi_server() as server:
        serve_session(server, write_session(tmp_path / "session.nwb", compression="gzip"))
        archive = archive_of(server, tmp_path)
        file = only_file(archive)
        spikes = len(server.http.log)
        found, _ = read_counts(archive, "ranges", file)
        np.testing.assert_array_equal(found, right)
        blobs = len(server.http.requests("GET", "/blobs/"))
        assert spikes and blobs > 2
        for skip in range(2, blobs):  # the first requests are for the file's metadata
            server.faults.add(Fault("flip", path=BLOBS, skip=skip))
            found, _ = read_counts(archive, "ranges", file)
            np.testing.assert_array_equal(found, right)


def test_the_counts_are_never_wrong_whatever_request_breaks(served: DandiServer, right: np.ndarray, tmp_path: Path):
    archive = archive_of(served, tmp_path)
    file = only_file(archive)
    read_counts(archive, "ranges", file)
    requests = len(served.http.requests("GET", "/blobs/"))
    for number in range(requests):
        # one request fails for good: HDF5 itself swallows some failures of reading
        served.faults.add(Fault("status", status=503, path=BLOBS, skip=number, times=4))
        try:
            found, _ = read_counts(archive, "ranges", file)
            np.testing.assert_array_equal(found, right)
        except NeuralPileError as error:
            assert isinstance(error, ArchiveUnavailable)
        served.faults.clear()


def test_retry_after_is_honored(served: DandiServer, tmp_path: Path):
    from neuralpile_dagster.net.http import get, open_pool
    from neuralpile_dagster.net.retry import AttemptFailed, RetryPolicy, retry_call, status_failed

    waits: list[float] = []
    policy = RetryPolicy(attempts=4, backoff_s=0.5, retry_after_max_s=100)
    pool = open_pool(served.api_url, policy, 1)
    failures = []
    for seconds in (7, 1000):
        served.faults.add(status(429, seconds))
        response = get(pool, f"{served.api_url}/info/", "it")
        failures.append(status_failed(response.status, response.headers))
    failures += [AttemptFailed("reset"), AttemptFailed("reset")]
    pool.clear()

    def attempt() -> None:
        raise failures.pop(0)

    with pytest.raises(AttemptFailed, match="reset"):
        retry_call(attempt, "sub-S1.nwb", policy, sleep=waits.append)
    assert failures == []
    assert waits[:2] == [7, 100]
    assert 2.0 <= waits[2] <= 2.5  # the third failure: four times the first wait, and a random part
    assert len(waits) == 3
