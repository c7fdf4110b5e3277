"""Tokens of motifs: encoding rows, motifs outside of the vocabulary, and files of tokens, by CPU time.

Rows are synthetic: 500 units x 20,000 bins with log-normal rates that drift. The baselines of the same run are the
published ways: a Python dictionary over the bytes of patches, and the argmax of float32 products (a GEMM in batches of
500) for motifs that it lacks.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bench.common import Laps, median_ratio, medians, rounds, save, show

SIZES = {
    "full": {"rows": 6, "units": 500, "bins": 20_000, "size": 32_000, "motifs": 20_000},
    "tiny": {"rows": 2, "units": 40, "bins": 4_000, "size": 500, "motifs": 1_000},
}
SHAPE = (1, 15)


def made(rows: int, units: int, bins: int) -> list[np.ndarray]:
    """Rows of counts."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(rows):
        rates = rng.lognormal(np.log(0.04), 1.1, (units, 1)).clip(0, 2)
        drift = np.repeat(rng.gamma(2, 0.5, (units, -(-bins // 50))), 50, axis=1)[:, :bins]
        found.append(rng.poisson(rates * drift).clip(0, 255).astype(np.uint8))
    return found


def published_nearest(motifs: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The published rule for motifs outside of the vocabulary."""
    lengths = np.maximum(np.linalg.norm(references.astype(np.float32), axis=1, keepdims=True), 1e-9)
    unit = np.ascontiguousarray((references / lengths).astype(np.float32).T)
    parts = [motifs[start : start + 500].astype(np.float32) for start in range(0, len(motifs), 500)]
    return np.concatenate([np.argmax(part @ unit, axis=1) for part in parts])


def put_maps(store: Any, keys: np.ndarray, counts: np.ndarray, vocabulary: Any) -> Any:
    """Maps of motifs with keys, of all buckets."""
    from neuralpile_dagster.files import sha256_of
    from neuralpile_dagster.motifs.counts import MotifCounts, bucket_of_keys
    from neuralpile_dagster.motifs.histogram import motif_writer, write_group
    from neuralpile_dagster.motifs.records import BUCKETS
    from neuralpile_dagster.motifs.token_files import Maps, build_map
    from neuralpile_dagster.records import StoredFile

    buckets, records = bucket_of_keys(keys), []
    for number, bucket in enumerate(BUCKETS):
        here, path = buckets == number, store.root / f"{bucket}.parquet"
        none = MotifCounts.none(vocabulary.shape)
        with motif_writer(path) as writer:
            write_group(writer, number, replace(none, keys=keys[here], key_counts=counts[here]))
        file = StoredFile(key=path.name, size=path.stat().st_size, sha256=sha256_of(path))
        records.append(build_map(store, "map", bucket, file, vocabulary, inputs=""))
    return Maps(store, records)


def measured(rows: int, units: int, bins: int, size: int, motifs: int, folder: Path) -> dict[str, Any]:
    """Millions of counts and thousands of motifs per CPU second, and bytes per token."""
    from neuralpile_dagster.motifs.counts import keys_of, pack, patches_of, take
    from neuralpile_dagster.motifs.records import MotifShape
    from neuralpile_dagster.motifs.token_files import write_tokens
    from neuralpile_dagster.motifs.tokens import Tokenizer, decode, encode
    from neuralpile_dagster.store import LocalStore
    from neuralpile_dagster.tables.rows import Row, RowReader, write_rows
    from neuralpile_dagster.tables.schemas import PILE_SCHEMA

    counts, shape = made(rows, units, bins), MotifShape(*SHAPE)
    keys, often = np.unique(np.concatenate([pack(row, shape)[0].ravel() for row in counts]), return_counts=True)
    order = np.argsort(-often, kind="stable")
    known, others = patches_of(keys[order[: size - 1]], shape.cells), keys[order[size - 1 :]]
    tail = patches_of(np.random.default_rng(1).permutation(others)[:motifs], shape.cells)
    alone = Tokenizer.of(known, SHAPE)
    kept = keys != 0
    mapped = Tokenizer(alone.vocabulary, put_maps(LocalStore(folder), keys[kept], often[kept], alone.vocabulary))
    dictionary = {patch.tobytes(): token for token, patch in enumerate(known)}
    tokens = [encode(row, mapped) for row in counts]
    path, target = folder / "counts.parquet", folder / "tokens.parquet"
    named = (Row(row, "sub", "ses", f"segment_{k}", "synthetic") for k, row in enumerate(counts))
    write_rows(path, named, PILE_SCHEMA)
    n_counts, n_tokens = rows * units * bins, sum(row.size for row in tokens)

    def encoded(tokenizer: Tokenizer, n: int) -> None:
        for row in counts[:n]:
            encode(row, tokenizer)

    def looked_up() -> None:
        for patch in take(counts[0], shape):
            dictionary.get(patch.tobytes(), 0)

    def decoded() -> None:
        for row in tokens:
            decode(row, alone, bins)

    def written() -> None:
        with RowReader(path) as reader, target.open("wb") as stream:
            write_tokens(stream, reader, mapped)

    def read() -> None:
        parquet = pq.ParquetFile(target)
        for group in range(parquet.num_row_groups):
            column = parquet.read_row_group(group, columns=["tokens"], use_threads=False)["tokens"].chunk(0).flatten()
            np.asarray(column.flatten()).reshape(len(column), -1)

    each = n_counts / rows / 1e6
    thousand = len(tail) / 1e3
    ways = {
        "encode with maps": (lambda: encoded(mapped, rows), rows * each),
        "encode without maps": (lambda: encoded(alone, 1), each),
        "encode by a dictionary of bytes": (looked_up, each),
        "decode": (decoded, rows * each),
        "write a shard of tokens": (written, rows * each),
        "read a shard of tokens": (read, rows * each),
        "nearest motif (thousands)": (lambda: alone.vocabulary.references.nearest(tail), thousand),
        "nearest by float32 GEMM (thousands)": (lambda: published_nearest(tail, known), thousand),
    }

    def timed(run: Any, amount: float) -> Mapping[str, float]:
        laps = Laps()
        run()
        laps.lap("run")
        return {"per_cpu_s": amount / max(laps.found["run_cpu_s"], 1e-6)}

    for run, _ in ways.values():
        run()  # compiled, mapped and cached before it is measured
    every = rounds({name: lambda way=way: timed(*way) for name, way in ways.items()})
    exact, published = alone.vocabulary.references.nearest(tail), published_nearest(tail, known)
    assert len(keys_of(tail)) == len(exact)
    return {
        "rates": medians(every),
        "ratios": {
            "encode with maps, to the dictionary": median_ratio(
                every, "per_cpu_s", "encode with maps", "encode by a dictionary of bytes"
            ),
            "nearest motif, to the GEMM": median_ratio(
                every, "per_cpu_s", "nearest motif (thousands)", "nearest by float32 GEMM (thousands)"
            ),
            "bytes of tokens, to those of counts": target.stat().st_size / path.stat().st_size,
        },
        "bytes_per_token": target.stat().st_size / n_tokens,
        "coverage": float(often[order[: size - 1]].sum() / often.sum()),
        "agrees_with_the_published_rule": float(np.mean(exact == published)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a smoke run")
    tiny = parser.parse_args().tiny
    with tempfile.TemporaryDirectory() as folder:
        results = measured(**SIZES["tiny" if tiny else "full"], folder=Path(folder))
    rates = [[name, figures["per_cpu_s"]] for name, figures in results["rates"].items()]
    show("Millions of counts (thousands of motifs) per CPU second", ["what", "per CPU s"], rates)
    others = ("bytes_per_token", "coverage", "agrees_with_the_published_rule")
    show("Of these rows", ["what", "found"], [[name.replace("_", " "), results[name]] for name in others])
    show("Ratios", ["what", "found"], list(results["ratios"].items()))
    save(f"motif_tokens{'-tiny' if tiny else ''}", results)


if __name__ == "__main__":
    main()
