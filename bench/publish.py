"""Bytes sent by publishing: ours beside `datasets.push_to_hub`, the same rows, the same test hub.

``python -m bench.publish [--tiny]``. Sent are (a) a component for the first
time, (b) the same again, (c) the component with one session more, (d) the pile
after its components; to a hub with a Xet store and to one without (Git LFS).
Bytes are counted by the hub as they arrive, memory is the peak of the
publishing process. All of one side's pushes come from one machine (one hf_xet
cache), as when a person publishes; (d) also from another machine than the
components. Recordings are synthetic; rows have 10 M tokens as in the real
datasets, because what Xet finds again depends on the size of a row. How memory
grows with what is sent is measured with files of random bytes, ours alone.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.common import measure, own_memory, save, show
from neuralpile_dagster_tests.servers.hf_hub import HubServer

SIZE = {"datasets": 3, "sessions": 8, "units": 500, "bins": 60_000, "shard_bytes": 12_000_000}
FILE_BYTES, FILES = 100_000_000, (2, 24)
TINY_FILE_BYTES = 1_000_000
TINY = {"datasets": 1, "sessions": 2, "units": 40, "bins": 3_000, "shard_bytes": 60_000}
HEADER = (
    "",
    "bytes of our shards",
    "sent, ours",
    "sent, push_to_hub",
    "ours / shards",
    "push_to_hub / shards",
    "peak MB, ours",
    "peak MB, push_to_hub",
)
STORAGES = {"Xet": True, "Git LFS": False}
TINY_STORAGES = {"Xet": True}
STEPS = ("a: first push", "b: unchanged", "c: one session added", "d: the pile", "d, another machine")


def push_ours(folder: Path, name: str) -> dict[str, Any]:
    """Publish a folder as this package does, to HF_ENDPOINT."""
    from neuralpile_dagster.hub.huggingface import HuggingFaceHub

    began = time.perf_counter()
    publication = HuggingFaceHub.from_environment("ours").publish(name, folder)
    return {"seconds": time.perf_counter() - began, "changed": publication.changed}


def push_theirs(folder: Path, name: str) -> dict[str, Any]:
    """Publish the rows of a folder's shards with `datasets.push_to_hub`, in as many shards."""
    import datasets

    files: dict[str, list[str]] = {}
    for path in sorted((folder / "data").iterdir()):
        files.setdefault(path.name.split("-")[0], []).append(str(path))
    rows = datasets.load_dataset("parquet", data_files=files)
    began = time.perf_counter()
    rows.push_to_hub(f"theirs/{name}", num_shards={split: len(paths) for split, paths in files.items()})
    return {"seconds": time.perf_counter() - began}


def _push(side: str, server: HubServer, home: Path, folder: Path, name: str) -> dict[str, Any]:
    server.received.clear()
    server.log.clear()
    environment = {
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": server.token,
        "HF_HOME": str(home),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        # push_to_hub cannot find out that a hub has no Xet store, and fails there
        **({"HF_HUB_DISABLE_XET": "1"} if side == "theirs" and not server.xet else {}),
    }
    measured = measure(["-m", "bench.publish", "--step", side, str(folder), name], environment)
    result: dict[str, Any] = measured.json()  # its own peak: a child's begins at that of this process, the hub's
    shards = sum(path.stat().st_size for path in (folder / "data").iterdir())
    return result | {
        "bytes": sum(server.received.values()),
        "by kind": dict(server.received),
        "requests": len(server.log),
        "shard bytes": shards,
    }


def run_side(side: str, xet: bool, data: Path, work: Path, n_datasets: int) -> dict[str, Any]:
    """All pushes of one side to one hub of its own; on Xet the pile also to another, from a machine without cache."""
    results: dict[str, Any] = {}
    home = work / "home"
    with HubServer(work / "server", xet=xet) as server:
        results[STEPS[0]] = _push(side, server, home, data / "a0", "sample-0")
        results[STEPS[1]] = _push(side, server, home, data / "a0", "sample-0")
        results[STEPS[2]] = _push(side, server, home, data / "c0", "sample-0")
        for number in range(1, n_datasets):
            _push(side, server, home, data / f"a{number}", f"sample-{number}")
        results[STEPS[3]] = _push(side, server, home, data / "pile", "pile")
    if xet:
        with HubServer(work / "other", xet=True) as server:
            for folder in ["c0", *(f"a{number}" for number in range(1, n_datasets))]:
                _push(side, server, work / "first", data / folder, f"sample-{folder[1:]}")
            results[STEPS[4]] = _push(side, server, work / "second", data / "pile", "pile")
    return results


def growth(work: Path, file_bytes: int, storages: Mapping[str, bool]) -> dict[str, Any]:
    """Peak memory of publishing few and many files of random bytes, by storage, and how it grows."""
    found: dict[str, Any] = {}
    for storage, xet in storages.items():
        for count in FILES:
            with tempfile.TemporaryDirectory(dir=work) as name:
                folder = Path(name) / "random"
                (folder / "data").mkdir(parents=True)
                (folder / "README.md").write_text("Random bytes.\n")
                for number in range(count):
                    (folder / "data" / f"{number:03d}.parquet").write_bytes(os.urandom(file_bytes))
                with HubServer(Path(name) / "server", xet=xet) as server:
                    pushed = _push("ours", server, Path(name) / "home", folder, "random")
            found[f"{storage}, {count}"] = {"bytes": count * file_bytes, "peak bytes": pushed["peak bytes"]}
    few, many = FILES
    found["ratios"] = {
        f"peak memory on {storage}, {many / few:.0f} times the bytes": found[f"{storage}, {many}"]["peak bytes"]
        / found[f"{storage}, {few}"]["peak bytes"]
        for storage in storages
    }
    return found


def ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """Bytes sent against the bytes of our shards: ours, and of `datasets.push_to_hub`."""
    return {
        f"{step}, sent by {side} / shards": found[step]["bytes"] / ours[step]["shard bytes"]
        for step in ours
        for side, found in {"ours": ours, "push_to_hub": theirs}.items()
    }


def report(results: Mapping[str, Any], storages: Mapping[str, bool]) -> None:
    """Print the tables."""
    for storage in storages:
        ours, theirs = results[storage]["ours"], results[storage]["theirs"]
        rows = [
            [
                step,
                ours[step]["shard bytes"],
                ours[step]["bytes"],
                theirs[step]["bytes"],
                ours[step]["bytes"] / ours[step]["shard bytes"],
                theirs[step]["bytes"] / ours[step]["shard bytes"],
                ours[step]["peak bytes"] // 1_000_000,
                theirs[step]["peak bytes"] // 1_000_000,
            ]
            for step in ours
        ]
        show(f"Bytes sent, hub with {storage}", HEADER, rows)
    sent = results["Xet"]["ours"][STEPS[3]]
    share = sent["bytes"] / sent["shard bytes"]
    print(f"\n(d) on Xet: {share:.1%} of the pile's bytes (target: <= 15%)")
    rows = [
        [hub, found["bytes"] // 1_000_000, found["peak bytes"] // 1_000_000]
        for hub, found in results["memory"].items()
        if hub != "ratios"
    ]
    show("Memory of publishing", ["hub, files", "MB sent", "peak MB"], rows)


def main() -> None:
    """Run all, or one step in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tiny", action="store_true", help="a smoke run, of rows too small for the ratios to mean much"
    )
    parser.add_argument("--step", nargs=3, metavar=("SIDE", "FOLDER", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        side, folder, name = options.step
        push = push_ours if side == "ours" else push_theirs
        print(json.dumps(push(Path(folder), name) | {"peak bytes": own_memory("VmHWM")}))
        return
    size, storages = (TINY, TINY_STORAGES) if options.tiny else (SIZE, STORAGES)
    results: dict[str, Any] = {"size": size}
    with tempfile.TemporaryDirectory() as work:
        data = Path(work) / "data"
        measure(["-m", "bench.publish_data", str(data), json.dumps(size)])
        for storage, xet in storages.items():
            results[storage] = {
                side: run_side(side, xet, data, Path(work) / f"{side}-{xet}", size["datasets"])
                for side in ("ours", "theirs")
            }
            results[storage]["ratios"] = ratios(**results[storage])
        results["memory"] = growth(Path(work), TINY_FILE_BYTES if options.tiny else FILE_BYTES, storages)
    report(results, storages)
    print(f"\nwrote {save('publish-tiny' if options.tiny else 'publish', results)}")


if __name__ == "__main__":
    main()
