"""A tokenized pile as a folder of files, ready to publish: shards of tokens, tokenizer, card.

How tokens are made belongs in `motifs`; the repository of the motif table is in `motif_table`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.files import explained, locked, write_bytes
from neuralpile_dagster.markdown import link, table
from neuralpile_dagster.motifs.records import (
    KEY_CELLS,
    MAX_KEY_COUNT,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    MapRecord,
    MotifShape,
    TokenizerDocument,
    TokenShardRecord,
    VocabularyRecord,
    parse_document,
)
from neuralpile_dagster.progress import Progress
from neuralpile_dagster.publish.card_parts import Config, Split
from neuralpile_dagster.publish.component import keep_only
from neuralpile_dagster.publish.configs import config_of_file
from neuralpile_dagster.publish.motif_table import OfPile, bin_width, card_of
from neuralpile_dagster.records import ShardRecord
from neuralpile_dagster.store import Store, fetch
from neuralpile_dagster.tables.footer import damaged, open_parquet

Shards = Mapping[str, Sequence[TokenShardRecord]]
"""Of each split, in the plan's order."""


def write_tokens(
    folder: Path,
    store: Store,
    of: OfPile,
    shards: Shards,
    vocabulary: VocabularyRecord,
    maps: Sequence[MapRecord],
    *,
    motif_table: str,
    progress: Progress = print,
) -> tuple[ShardRecord, ...]:
    """Make ``folder`` hold exactly the files of a tokenized pile; the same inputs give the same bytes.

    Parameters
    ----------
    folder : Path
        Given over to this function: other files in it are removed.
    store : Store
    of : OfPile
        The repository, and the pile that it is made of.
    shards : mapping of str to sequence of TokenShardRecord
        By split.
    vocabulary : VocabularyRecord
    maps : sequence of MapRecord
        Of all buckets.
    motif_table : str
        Repository of the motif table.
    progress : callable

    Raises
    ------
    HubError
        There are no shards.
    StoreError, TableError
        A file is damaged or gone; names it.
    """
    if not any(shards.values()):
        raise HubError("the tokenized pile has no shards", remedy="materialize the pile's tokens")
    shape = MotifShape.parse(vocabulary.shape)
    with explained(folder), locked(folder.parent / f".{folder.name}.lock", progress, f"{folder.name} is being made"):
        fetch(store, vocabulary.file, folder / VOCABULARY_FILE)
        fetch(store, vocabulary.tokenizer_file, folder / TOKENIZER_FILE)
        placed = {split: [_place(folder, store, split, shard) for shard in some] for split, some in shards.items()}
        configs = [*_configs(folder, placed, shape)]
        document = parse_document((folder / TOKENIZER_FILE).read_bytes(), TOKENIZER_FILE)
        bin_width_s = document.bin_width_s or of.bin_width_s  # a pile may have other bins than the instance
        lines = [
            *_what(of, vocabulary, motif_table),
            *["", *_splits(shards), ""],
            *["## Loss", "", *_loss(vocabulary, shards, maps), ""],
            *["## Tokens", "", *_tokens(document, shape), ""],
            *[
                "## Use",
                "",
                *_use(of.repository, next(iter(placed)), shape, bin_width_s),
                "",
            ],
        ]
        every = tuple(shard for some in placed.values() for shard in some)
        title = f"tokens of {vocabulary.shape} motifs, vocabulary of {vocabulary.size:,}"
        card = card_of(of, title, lines, configs, "tokens", sum(shard.rows for shard in every))
        write_bytes(folder / "README.md", card.encode())
        keep_only(folder, ["README.md", VOCABULARY_FILE, TOKENIZER_FILE, *(shard.path for shard in every)])
    return every


def _place(folder: Path, store: Store, split: str, shard: TokenShardRecord) -> ShardRecord:
    path = f"data/{split}-{shard.name.rpartition('-')[2]}-{shard.file.sha256[:8]}.parquet"
    fetch(store, shard.file, folder / path)
    return ShardRecord(path=path, rows=shard.rows, tokens=shard.tokens, bytes=shard.file.size, sha256=shard.file.sha256)


def _configs(folder: Path, placed: Mapping[str, Sequence[ShardRecord]], shape: MotifShape) -> Iterator[Config]:
    schema: pa.Schema | None = None
    splits = {}
    for split, shards in placed.items():
        size = 0
        for shard in shards:
            schema, more = _arrow_bytes(folder / shard.path, shape)
            size += more
        splits[split] = Split(f"data/{split}-*", sum(shard.rows for shard in shards), size)
    yield Config("default", schema, splits, sum(shard.bytes for some in placed.values() for shard in some))
    yield config_of_file(folder, "vocabulary", VOCABULARY_FILE)


def _arrow_bytes(path: Path, shape: MotifShape) -> tuple[pa.Schema, int]:
    """Schema of a shard, and the bytes of its rows in Arrow: tokens, and an offset for each list and text."""
    size = 0
    with open_parquet(path, path.name) as parquet, damaged(path.name):
        schema = parquet.schema_arrow
        width = schema.field("tokens").type.value_type.value_type.bit_width // 8
        others = parquet.read(columns=schema.names[1:], use_threads=False)
        for number, n_bins in enumerate(others["n_bins"].to_pylist()):
            tokens = parquet.metadata.row_group(number).column(0).num_values
            size += tokens * width + 4 * (tokens // max(shape.grid(1, n_bins)[1], 1)) + 4  # a row may have no bins
    return schema, size + others.nbytes


def _what(of: OfPile, vocabulary: VocabularyRecord, motif_table: str) -> list[str]:
    fewer = vocabulary.size < vocabulary.asked_size
    asked = f" ({vocabulary.asked_size:,} were asked for; the pile has fewer motifs)" if fewer else ""
    return [
        f"Every row of {link(of.pile, of.pile_url)} as tokens: the spike counts of a row are cut into patches of "
        f"{vocabulary.shape} (units x bins), and each patch is the number of a motif. {bin_width(of)} The vocabulary "
        f"has the {vocabulary.motifs:,} most frequent motifs of the train split, those of "
        f"{link(motif_table, of.url_of(motif_table))}, and a separator: {vocabulary.size:,} tokens{asked}. Rows, their "
        "order and their splits are those of the pile, shard by shard.",
    ]


def _splits(shards: Shards) -> list[str]:
    rows: list[list[str | int]] = [
        [
            split,
            sum(shard.rows for shard in some),
            sum(shard.tokens for shard in some),
            f"{_share(some):.6%}",
            len(some),
            sum(shard.file.size for shard in some),
        ]
        for split, some in shards.items()
    ]
    return table(["split", "rows", "tokens", "decoded as they were", "files", "bytes"], rows)


def _share(shards: Sequence[TokenShardRecord]) -> float:
    return sum(shard.exact_tokens for shard in shards) / max(sum(shard.tokens for shard in shards), 1)


def _loss(vocabulary: VocabularyRecord, shards: Shards, maps: Sequence[MapRecord]) -> list[str]:
    tail = sum(each.tail_patches for each in maps)
    spikes, decoded = sum(each.spikes for each in maps), sum(each.spikes_decoded for each in maps)
    if all(shard.exact_tokens == shard.tokens for some in shards.values() for shard in some):
        return ["All patches are motifs of the vocabulary: decoded, they are what they were."]
    lines = [
        f"{vocabulary.coverage:.6%} of the patches of the train split are motifs of the vocabulary: decoded, they are "
        "what they were. Each other patch has the token of the motif with the largest cosine similarity, compared "
        "exactly in whole numbers, of equals the smaller token; a patch that overlaps with no motif becomes silence.",
    ]
    if tail:
        lines += [
            "",
            f"Of the {tail:,} other patches, {sum(each.silenced_patches for each in maps):,} became silence; their "
            f"counts differ from what their tokens decode to by {sum(e.tail_difference for e in maps) / tail:.3f} on "
            f"average (sum over a patch of the absolute differences). All tokens of train decode to "
            f"{decoded / max(spikes, 1):.4%} of its spikes. Cosine similarity does not see magnitude: nine spikes in a "
            "bin and one have the same most similar motif.",
        ]
    return lines


def _tokens(document: TokenizerDocument, shape: MotifShape) -> list[str]:
    units = "units" if shape.n_units == 1 else f"groups of {shape.n_units} units"
    return [
        f"- `tokens`: list of lists, {units} x time steps. A time step is {shape.n_bins} bins; the last one of a row "
        "is padded with silence",
        "- `n_bins`: bins of the row of counts, without padding",
        *(["- `n_units`: units of the row of counts, without padding"] if shape.n_units > 1 else []),
        "- `subject_id`, `session_id`, `segment_id`, `source_dataset`: as in the pile",
        "",
        f"Token {document.silent_id:,} is silence, token {document.sep_id:,} the separator, which no "
        "row contains: `interleave` puts it before every time step, in the order of columns that the pile's authors "
        "train on, and `deinterleave` takes it out again. `tokenizer.json` has the rest of what decides tokens, the "
        "config `vocabulary` (`vocabulary.parquet`) a row for every token but the separator:",
        "",
        "- `id`: the token",
        f"- `patch`: the {shape.cells} counts that it stands for, unit after unit",
        "- `frequency`: how many patches of the train split are this motif",
        f"- `key`: the patch as one number, the sum of `count[j] << 4 * j`; null where {_without_key(shape)}",
    ]


def _without_key(shape: MotifShape) -> str:
    return f"a count is above {MAX_KEY_COUNT}" if shape.has_keys else f"it has more than {KEY_CELLS} counts, as here"


def _use(repository: str, split: str, shape: MotifShape, bin_width_s: float) -> list[str]:
    sizes, rows, unit = 'row["n_bins"][0].as_py()', "units", "unit"
    cut = ':, : row["n_bins"][0].as_py()'
    if shape.n_units > 1:
        sizes += ', row["n_units"][0].as_py()'
        rows, unit = f"groups of {shape.n_units} units", "group"
        cut = ': row["n_units"][0].as_py(), : row["n_bins"][0].as_py()'
    return f'''\
```python
# pip install huggingface_hub, and neuralpile-dagster from its repository
import fsspec
import numpy as np
import pyarrow.parquet as pq
from neuralpile_dagster.motifs import decode, encode, interleave
from neuralpile_dagster.reading import open_tokenizer

repository = "hf://datasets/{repository}"  # or the folder of a local copy
tokenizer = open_tokenizer(repository)


def read_rows(split):
    for shard in fsspec.open_files(f"{{repository}}/data/{{split}}-*.parquet"):
        with shard as file:
            yield from pq.ParquetFile(file, pre_buffer=False).iter_batches(batch_size=1, use_threads=False)


for row in read_rows("{split}"):
    by_unit = row["tokens"].flatten()
    tokens = np.asarray(by_unit.flatten()).reshape(len(by_unit), -1)  # {rows} x time steps
    sequence = interleave(tokens, tokenizer.sep_id)  # separator, {unit} 0, {unit} 1, ..., separator, {unit} 0, ...
    counts = decode(tokens, tokenizer, {sizes})  # uint8, units x bins
    break

mine = np.zeros((3, 100), np.uint8)  # counts of your own: units x bins of {bin_width_s * 1000:g} ms
tokens_of_mine = encode(mine, tokenizer, bin_width_s={bin_width_s!r})
```

Without neuralpile-dagster, decoding is a look-up:

```python
# pip install huggingface_hub numpy pyarrow
import fsspec
import numpy as np
import pyarrow.parquet as pq

repository = "hf://datasets/{repository}"  # or the folder of a local copy
with fsspec.open(f"{{repository}}/vocabulary.parquet") as file:
    patches = pq.read_table(file)["patch"].combine_chunks().flatten()
motifs = np.asarray(patches).reshape(-1, {shape.n_units}, {shape.n_bins})  # token -> counts, units x bins
with fsspec.open_files(f"{{repository}}/data/{split}-*.parquet")[0] as file:
    row = next(pq.ParquetFile(file, pre_buffer=False).iter_batches(batch_size=1, use_threads=False))
by_unit = row["tokens"].flatten()
tokens = np.asarray(by_unit.flatten()).reshape(len(by_unit), -1)  # {rows} x time steps
padded = motifs[tokens].swapaxes(1, 2).reshape(len(tokens) * {shape.n_units}, -1)
decoded = padded[{cut}]  # uint8, units x bins
```'''.splitlines()
