"""Reading the spikes of a remote session: by ranges as we do, beside a whole download, remfile and fsspec.

``python -m bench.remote_read [--tiny]``. A server in another process gives every answer after 30 ms and sends 80 MB/s
per connection (``--latency``, ``--rate``). The session is synthetic, shaped like an Allen one at a quarter of its scale
(600 units, 20 M spikes), in the three layouts met in archives. Every method reads spike times, their index, unit ids
and quality labels, in a fresh process; time counts from the first request to the last value (imports not included),
memory is the peak above what the process held before. Bytes are counted by the server.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.common import measure, own_memory, save, show
from neuralpile_dagster_tests.servers.http import Request, Response, Server, file_response

UNITS, SPIKES = 600, 20_000_000
TINY_UNITS, TINY_SPIKES = 20, 100_000
CLOCK_HZ = 30_000  # spike times are multiples of a sampling clock, which is why they compress
LAYOUTS = ("contiguous", "gzip, 4 MiB chunks", "gzip, small old chunks")
METHODS = ("whole file", "remfile", "fsspec", "ranges")
COLUMNS = ("spike_times", "spike_times_index", "id", "quality")
AIMS = {  # the project's own
    "contiguous": {"time / whole file's": 1 / 4, "bytes / needed": 1.1},
    "gzip, 4 MiB chunks": {"time / whole file's": 1 / 3},
    "gzip, small old chunks": {"time / whole file's": 1 / 3},
}
for _aims in AIMS.values():
    _aims |= {"time / remfile's": 1 / 2, "memory / spikes": 1.5}


def make(path: Path, layout: str, units: int, spikes: int) -> dict[str, int]:
    """Write one synthetic file; give the stored bytes of the columns that are read, and of the spikes in memory."""
    import h5py
    import numpy as np

    rng = np.random.default_rng(0)
    rates = rng.gamma(1.5, 1.0, units)
    counts = rng.multinomial(spikes, rates / rates.sum())
    times = np.concatenate([np.sort(rng.integers(0, 7200 * CLOCK_HZ, count)) for count in counts]) / CLOCK_HZ
    options: dict[str, Any] = {} if layout == "contiguous" else {"compression": "gzip"}
    if "4 MiB" in layout:
        options["chunks"] = (min(1 << 19, spikes),)
    with h5py.File(path, "w") as file:
        group = file.create_group("units")
        for name, values in (("spike_times", times), ("spike_amplitudes", rng.normal(100, 30, spikes))):
            if "small" in layout:
                _grow(group, name, values, options)
            else:
                group.create_dataset(name, data=values, **options)
        group["spike_times_index"] = np.cumsum(counts).astype("u4")
        group["id"] = np.arange(units)
        group["quality"] = np.array(["good"] * units, dtype=object)
        group["waveform_mean"] = rng.normal(size=(units, 82, 300)).astype("f4")
        stored = sum(group[name].id.get_storage_size() for name in COLUMNS)
    return {"needed": stored, "spikes": times.nbytes, "file": path.stat().st_size}


def _grow(group: Any, name: str, values: Any, options: dict[str, Any]) -> None:
    """As files were written that grew unit by unit: chunks of 1024 values (h5py's own guess), the index among them."""
    column = group.create_dataset(name, (0,), values.dtype, maxshape=(None,), chunks=True, **options)
    for start in range(0, len(values), 500_000):
        stop = min(start + 500_000, len(values))
        column.resize((stop,))
        column[start:stop] = values[start:stop]


def _columns(file: Any, read: Callable[[Any], Any]) -> Any:
    spikes, *_ = (read(file["units"][name]) for name in COLUMNS)
    return spikes


def _whole_file(url: str, size: int) -> Any:
    import h5py
    import requests

    with tempfile.NamedTemporaryFile() as target:
        with requests.get(url, stream=True, timeout=60) as answer:
            for block in answer.iter_content(1 << 20):
                target.write(block)
        target.flush()
        with h5py.File(target.name, "r") as file:
            return _columns(file, lambda column: column[()])


def _remfile(url: str, size: int) -> Any:
    import h5py
    import remfile

    with h5py.File(remfile.File(url), "r") as file:
        return _columns(file, lambda column: column[()])


def _fsspec(url: str, size: int) -> Any:
    import fsspec
    import h5py

    with fsspec.filesystem("http").open(url) as remote, h5py.File(remote, "r") as file:
        return _columns(file, lambda column: column[()])


def _ranges(url: str, size: int) -> Any:
    from neuralpile_dagster.hdf5.ranged import open_ranged
    from neuralpile_dagster.net.http import Connections
    from neuralpile_dagster.net.ranges import RemoteObject
    from neuralpile_dagster.net.retry import RetryPolicy
    from neuralpile_dagster.settings import DEFAULT_CONNECTIONS

    connections = Connections(DEFAULT_CONNECTIONS, RetryPolicy())
    remote = RemoteObject("bench.nwb", size, url, lambda: url, connections)
    with open_ranged(remote, Path, connections=DEFAULT_CONNECTIONS) as opened, opened.hdf5() as file:
        return _columns(file, opened.read)


READERS: dict[str, Callable[[str, int], Any]] = dict(
    zip(METHODS, (_whole_file, _remfile, _fsspec, _ranges), strict=True)
)
IMPORTS = {"whole file": "requests", "remfile": "remfile", "fsspec": "fsspec.implementations.http", "ranges": "h5py"}


def read_once(method: str, url: str, size: int) -> dict[str, Any]:
    """Run one method in this process; seconds, peak memory above the start, digest of the spike times."""
    import importlib

    import h5py
    import numpy as np

    for module in (IMPORTS[method], "neuralpile_dagster.hdf5.ranged"):
        importlib.import_module(module)
    before = own_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    start = time.perf_counter()
    spikes = READERS[method](url, size)
    seconds = time.perf_counter() - start
    peak = own_memory("VmHWM") - before
    digest = hashlib.sha256(np.ascontiguousarray(spikes)).hexdigest()
    return {"seconds": seconds, "memory": peak, "digest": digest, "h5py": h5py.__version__}


class Files:
    """The server's application: the files of a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        return file_response(request, self.folder / request.path.strip("/"), "bench")


def compare(layout: str, server: Server, sizes: dict[str, int], repeats: int) -> dict[str, Any]:
    """All methods on one layout: medians of ``repeats`` runs, in turn."""
    url = f"{server.url}/{LAYOUTS.index(layout)}.nwb"
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    for _ in range(repeats):
        for method in METHODS:
            server.log.clear()
            sent = server.bytes_sent
            arguments = ["-m", "bench.remote_read", "--method", method, "--url", url, "--size", str(sizes["file"])]
            result = measure(arguments).json()
            result |= {"bytes": server.bytes_sent - sent, "requests": len(server.log)}
            runs[method].append(result)
    if len({run["digest"] for results in runs.values() for run in results}) != 1:
        raise RuntimeError(f"{layout}: the methods did not read the same spike times")
    figures = ("seconds", "bytes", "requests", "memory")
    medians = {m: {f: statistics.median(run[f] for run in results) for f in figures} for m, results in runs.items()}
    ours, whole, remfile = medians["ranges"], medians["whole file"], medians["remfile"]
    return {
        "sizes": sizes,
        "methods": medians,
        "ratios": {
            "time / whole file's": ours["seconds"] / whole["seconds"],
            "time / remfile's": ours["seconds"] / remfile["seconds"],
            "memory / spikes": ours["memory"] / sizes["spikes"],
            "bytes / needed": ours["bytes"] / sizes["needed"],
        },
    }


def report(results: dict[str, dict[str, Any]], judge: bool) -> None:
    """Print the figures and the aims."""
    for layout, result in results.items():
        rows = [
            [m, f["seconds"], f["bytes"] / 1e6, int(f["requests"]), f["memory"] / result["sizes"]["spikes"]]
            for m, f in result["methods"].items()
        ]
        title = f"{layout} ({result['sizes']['needed'] / 1e6:,.0f} MB needed of {result['sizes']['file'] / 1e6:,.0f})"
        show(title, ["method", "seconds", "MB fetched", "requests", "memory / spikes"], rows)
    aims = [
        (layout, figure, found, AIMS[layout][figure])
        for layout, result in results.items()
        for figure, found in result["ratios"].items()
        if figure in AIMS[layout]
    ]
    header = ["layout", "figure", "ranges", "aim"] + ["met"] * judge
    verdicts = [[*aim] + ["yes" if aim[2] <= aim[3] else "NO"] * judge for aim in aims]
    show("Aims" if judge else "Aims (not judged: too small to say anything)", header, verdicts)


def main() -> None:
    """Run the bench, or (``--make``, ``--method``) one part of it in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a smoke run of some seconds")
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--rate", type=float, default=80e6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--layout", help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    units, spikes = (TINY_UNITS, TINY_SPIKES) if options.tiny else (UNITS, SPIKES)
    if options.make:
        print(json.dumps(make(options.make, options.layout, units, spikes)))
        return
    if options.method:
        print(json.dumps(read_once(options.method, options.url, options.size)))
        return
    results = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Files(Path(folder)), latency_s=options.latency, bytes_per_s=options.rate) as server,
    ):
        for path, layout in ((Path(folder, f"{number}.nwb"), layout) for number, layout in enumerate(LAYOUTS)):
            arguments = ["--make", str(path), "--layout", layout, *["--tiny"] * options.tiny]
            sizes = measure(["-m", "bench.remote_read", *arguments]).json()
            results[layout] = compare(layout, server, sizes, 1 if options.tiny else options.repeats)
            path.unlink()
    report(results, judge=not options.tiny)
    print(f"\nwritten to {save('remote_read-tiny' if options.tiny else 'remote_read', {'layouts': results})}")


if __name__ == "__main__":
    main()
