"""A failing push leaves the token nowhere: not in logs, output, exceptions, files, nor in what pickles."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from pathlib import Path

import pytest

from neuralpile_dagster.errors import HubError
from neuralpile_dagster_tests.fixtures.commands import run
from neuralpile_dagster_tests.fixtures.huggingface import folder_of, hub_for
from neuralpile_dagster_tests.servers.faults import Fault, status
from neuralpile_dagster_tests.servers.hf_hub import HubServer
from neuralpile_dagster_tests.servers.hf_hub_lfs import SIGNATURE

TOKEN = "hf_SecretSecretSecretSecretSecret"
ECHO = f"who are you, Bearer {TOKEN}?".encode()
FAILURES = {
    "refused everywhere, with the token in the answer": Fault("status", status=403, body=ECHO, times=10_000),
    "busy everywhere": status(503, times=10_000),
    "card refused": Fault("status", path="validate-yaml", status=400, body=b'{"error": "' + ECHO + b'"}', times=10_000),
    "storage refuses": Fault("status", "PUT", status=403, body=ECHO, times=10_000),
    "commit refused": Fault("status", path="/commit/", status=403, body=ECHO, times=10_000),
    "commit reset": Fault("reset", path="/commit/", times=10_000),
    "xet store refuses": Fault("status", path="/v1/", status=403, body=ECHO, times=10_000),
    "xet token refused": Fault("status", path="/xet-write-token", status=403, body=ECHO, times=10_000),
    "no hub at all": Fault("reset", times=10_000),
}


@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_push_tells_no_secret(
    tmp_path: Path, failure: str, xet: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    caplog.set_level("DEBUG")
    lines: list[str] = []
    with HubServer(tmp_path / "server", xet=xet, token=TOKEN) as server:
        server.faults.add(FAILURES[failure])
        try:
            hub_for(server, plans=2).publish("x", folder_of(tmp_path / "x", shards=2), lines.append)
        except HubError as error:
            said = "".join(traceback.format_exception(error)) + repr(pickle.dumps(error))
        else:
            assert failure == ("storage refuses" if xet else "xet store refuses")  # what is not used cannot fail
            return
    shown = capfd.readouterr()
    for text in (said, caplog.text, "\n".join(lines), shown.out, shown.err):
        assert TOKEN not in text
    assert SIGNATURE.partition("=")[2] not in said + "\n".join(lines)


def test_a_failing_push_in_a_process_of_its_own_leaves_no_secret_in_output_or_files(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from neuralpile_dagster.hub.huggingface import HuggingFaceHub;"
        "hub = HuggingFaceHub.from_environment('lab'); print(hub); hub.publish('x', Path(sys.argv[1]))"
    )
    home = tmp_path / "home"
    with HubServer(tmp_path / "server", xet=True, token=TOKEN) as server:
        server.faults.add(Fault("status", path="/commit/", status=403, body=ECHO, times=10_000))
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home),
            "HOME": str(home),
            "HF_DEBUG": "1",
        }
        folder = folder_of(tmp_path / "x", shards=2)
        done = run([sys.executable, "-c", code, str(folder)], environment)
        assert server.requests("POST", "/commit/")
    assert done.returncode == 1
    assert "HubError" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(home in path.parents for path in left)  # hf_xet writes logs and a cache
    assert [path for path in left if TOKEN.encode() in path.read_bytes()] == []
