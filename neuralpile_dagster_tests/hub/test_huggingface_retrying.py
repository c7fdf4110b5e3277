"""The client that huggingface_hub uses: what it repeats, what not, and how long it waits."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
from huggingface_hub import get_session
from huggingface_hub.utils import http_backoff

from neuralpile_dagster.errors import HubUnavailable
from neuralpile_dagster.hub.huggingface import client
from neuralpile_dagster.hub.huggingface.client import HUB_POLICY, HubGaveUp, asked_wait_s, install
from neuralpile_dagster.net.retry import AttemptFailed, retry_call
from neuralpile_dagster_tests.fixtures.commands import run
from neuralpile_dagster_tests.fixtures.huggingface import QUICK
from neuralpile_dagster_tests.servers.faults import Fault, status
from neuralpile_dagster_tests.servers.http import Request, Response, Server, json_response

REPEATED = [
    ("GET", "/api/datasets/lab/x/revision/main"),
    ("HEAD", "/datasets/lab/x/resolve/main/README.md"),
    ("PUT", "/anything"),
    ("POST", "/api/repos/create"),
    ("POST", "/api/validate-yaml"),
    ("POST", "/api/complete_multipart"),
    ("POST", "/api/datasets/lab/x/preupload/main"),
    ("POST", "/api/datasets/lab/x/paths-info/main"),
    ("POST", "/api/datasets/lab/x/tag/main"),
    ("POST", "/datasets/lab/x.git/info/lfs/objects/batch"),
    ("POST", "/datasets/lab/x.git/info/lfs/objects/verify"),
]
ONCE = [
    ("POST", "/api/datasets/lab/x/commit/main"),
    ("POST", "/api/datasets/lab/tag/commit/main"),
    ("POST", "/api/datasets/lab/x/commit/refs%2Fpr%2F1"),
    ("POST", "/api/datasets/lab/x/discussions"),
    ("POST", "/api/datasets/lab/x/discussions/1/merge"),
    ("POST", "/api/datasets/lab/x/super-squash/main"),
]


def answer(request: Request) -> Response:
    return json_response({"method": request.method, "body": request.body.decode()})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(answer) as server:
        install(server.url, QUICK)
        yield server


TROUBLES = [
    status(500),
    status(503, retry_after=0),
    status(429, retry_after=0),
    Fault("reset"),
    Fault("reset", after_serving=True),
    Fault("hang"),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: f"{t.kind}-{t.status}")
@pytest.mark.parametrize(("method", "path"), REPEATED)
def test_calls_that_change_nothing_when_made_twice_are_repeated(server: Server, method: str, path: str, trouble: Fault):
    server.faults.add(trouble)
    response = get_session().request(method, server.url + path, content=b"hello" if method != "HEAD" else None)
    assert response.status_code == 200
    assert len(server.log) == 2
    if method != "HEAD":
        assert response.json() == {"method": method, "body": "hello"}


@pytest.mark.parametrize(("method", "path"), ONCE)
def test_commits_and_merges_are_never_repeated(server: Server, method: str, path: str):
    server.faults.add(status(503, times=10), status(503))
    assert get_session().request(method, server.url + path, content=b"x").status_code == 503
    server.faults.clear()
    server.faults.add(Fault("reset", times=10))
    with pytest.raises(httpx2.TransportError):
        get_session().request(method, server.url + path, content=b"x")
    assert len(server.log) == 2


def test_what_the_library_does_without_is_asked_for_once(server: Server):
    from huggingface_hub.utils import _detect_agent

    server.faults.add(status(503, times=10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_detect_agent.constants, "ENDPOINT", server.url)
        assert _detect_agent._fetch_registry() is None
    assert [target for _, target, *_ in server.log] == ["/api/agent-harnesses"]


def test_a_commit_to_a_silent_hub_times_out_although_the_library_sets_no_time_out(server: Server):
    server.faults.add(Fault("hang"))
    with pytest.raises(httpx2.ReadTimeout):
        get_session().post(server.url + "/api/datasets/lab/x/commit/main", content=b"x", timeout=None)
    assert len(server.log) == 1


@pytest.mark.parametrize("kind", ["short_body", "short_unmarked", "reset_mid_body", "hang_mid_body"])
def test_json_replies_that_are_cut_are_asked_for_again(server: Server, kind: str):
    server.faults.add(Fault(kind))  # type: ignore[arg-type]
    response = get_session().get(server.url + "/api/datasets/lab/x/tree/main")
    assert response.json()["method"] == "GET"
    assert len(server.log) == 2


def test_a_streamed_body_is_sent_once(server: Server):
    server.faults.add(status(500))
    response = get_session().put(server.url + "/upload", content=iter([b"a", b"b"]))
    assert response.status_code == 500
    assert len(server.log) == 1


def test_giving_up_says_what_failed_without_the_query_and_is_network_trouble_to_others(server: Server):
    server.faults.add(status(503, times=100))
    with pytest.raises(HubGaveUp, match=r"GET http://127.0.0.1:\d+/api/x failed 3 times; found: status 503") as caught:
        get_session().get(server.url + "/api/x?signature=5ecre7")
    assert isinstance(caught.value, HubUnavailable)
    assert isinstance(caught.value, httpx2.TransportError)
    assert "5ecre7" not in str(caught.value)
    assert len(server.log) == QUICK.attempts


def test_a_hub_that_asks_for_too_long_a_wait_is_given_up_at_once(server: Server):
    server.faults.add(Fault("status", status=429, headers=(("RateLimit", '"api";r=0;t=299'),), times=100))
    with pytest.raises(HubGaveUp, match="asks to wait 299 s"):
        get_session().get(server.url + "/api/x")
    assert len(server.log) == 1


def test_what_the_library_does_with_every_request_is_kept():
    def with_trace(request: Request) -> Response:
        return json_response("x-amzn-trace-id" in request.headers)

    with Server(with_trace) as server:
        install(server.url, QUICK)
        assert get_session().get(server.url + "/api/x").json() is True


def test_other_hosts_are_asked_once(server: Server):
    with Server(answer) as other:
        other.faults.add(status(503))
        # by another name: hubs stay installed as long as the process, and an earlier test's may have had this port
        url = other.url.replace("127.0.0.1", "localhost")
        assert get_session().get(url + "/api/x", timeout=5).status_code == 503
        assert len(other.log) == 1


def test_other_hosts_get_the_time_outs_of_the_hub(server: Server):
    with Server(answer) as storage:
        storage.faults.add(Fault("hang"))
        with pytest.raises(httpx2.ReadTimeout):
            get_session().get(storage.url.replace("127.0.0.1", "localhost"), timeout=None)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 5 "}, 5.0),
        ({"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 55.0),
        ({"RateLimit": '"api";r=12;t=55'}, None),
        ({"Retry-After": "7", "RateLimit": '"api";r=0;t=55'}, 7.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "soon", "RateLimit": '"api";r=0;t=55'}, 55.0),
        ({}, None),
    ],
)
def test_a_hub_may_say_how_long_to_wait(headers: dict[str, str], wait: float | None):
    assert asked_wait_s(headers) == wait


def test_a_hub_may_say_until_when_to_wait():
    until = datetime.now(UTC) + timedelta(hours=1)
    wait = asked_wait_s({"Retry-After": format_datetime(until, usegmt=True)})
    assert wait is not None
    assert 3000 < wait <= 3600


def test_waits_double_up_to_the_longest_with_a_random_part():
    waits: list[float] = []

    def fail() -> None:
        raise AttemptFailed("reset")

    with pytest.raises(AttemptFailed):
        retry_call(fail, "it", replace(HUB_POLICY, attempts=41), sleep=waits.append)
    assert len(waits) == 40
    for number, wait in enumerate(waits):
        assert min(30.0, 2.0**number) <= wait <= min(30.0, 2.0**number + 1.0)
    assert len(set(waits[:5])) == 5


@pytest.mark.parametrize("code", [429, 503])
def test_storage_that_asks_for_too_long_a_wait_is_given_up_at_once(server: Server, code: int):
    """The library itself repeats uploads to the storage, after whatever wait is asked for."""
    with Server(answer) as storage:
        storage.faults.add(status(code, retry_after=10_000, times=100))
        with pytest.raises(HubGaveUp, match="asks to wait 10,000 s"):
            http_backoff("PUT", storage.url.replace("127.0.0.1", "localhost"), content=b"x")
        assert len(storage.log) == 1


def test_a_large_json_response_is_left_to_the_library():
    request = httpx2.Request("GET", "https://h.org/api/x")
    headers = {"content-type": "application/json", "content-length": str(1 << 27)}
    response = httpx2.Response(200, headers=headers, content=iter([b"{"]))
    assert client._reason(request, response) == ""
    assert not response.is_stream_consumed


def test_a_good_response_that_names_a_long_wait_is_taken(server: Server):
    server.faults.add(Fault("status", status=200, headers=(("Retry-After", "10000"),)))
    assert get_session().post(server.url + "/api/datasets/lab/x/commit/main", content=b"x").status_code == 200


def test_a_commit_that_is_asked_to_wait_too_long_is_given_up_at_once(server: Server):
    server.faults.add(status(503, retry_after=10_000))
    with pytest.raises(HubGaveUp, match="asks to wait 10,000 s"):
        get_session().post(server.url + "/api/datasets/lab/x/commit/main", content=b"x")
    assert len(server.log) == 1


def test_hf_xet_is_told_the_same_unless_the_user_said_otherwise():
    code = (
        "import json, os; from neuralpile_dagster.hub.huggingface.client import install;"
        "from neuralpile_dagster.net.retry import RetryPolicy;"
        "install('http://127.0.0.1:9', RetryPolicy(attempts=4, backoff_s=2.0, read_timeout_s=33.0));"
        "import hf_xet; c = dict(hf_xet.XetConfig().items());"
        "print(json.dumps([str(c[f'client.{k}']) for k in ('retry_max_attempts', 'retry_base_delay', 'read_timeout')]))"
    )
    environment = {**os.environ, "HF_XET_CLIENT_READ_TIMEOUT": "44s"}
    for name in ("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "HF_XET_CLIENT_RETRY_BASE_DELAY"):
        environment.pop(name, None)
    done = run([sys.executable, "-c", code], environment)
    assert json.loads(done.stdout) == ["4", "0:00:02", "0:00:44"]


def test_proxies_of_the_environment_are_used_except_where_it_says_no():
    code = (
        "import sys; from neuralpile_dagster.hub.huggingface.client import install;"
        "from neuralpile_dagster.net.retry import RetryPolicy;"
        "from huggingface_hub import get_session; install(sys.argv[1], RetryPolicy(attempts=1));"
        "print(get_session().get(sys.argv[2], timeout=5).text)"
    )

    def ask(url: str, **environment: str) -> str:
        settings = {**os.environ, **environment}
        done = run([sys.executable, "-c", code, url, url], settings)
        return done.stdout.strip() + done.stderr[-200:]

    with Server(lambda _: Response(body=b"proxy")) as proxy, Server(lambda _: Response(body=b"hub")) as hub:
        assert ask("http://hub.invalid/api/x", http_proxy=proxy.url, no_proxy="") == "proxy"
        assert ask(hub.url + "/api/x", http_proxy=proxy.url, no_proxy="localhost,127.0.0.1") == "hub"
