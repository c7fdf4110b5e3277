"""Open the tokenizer of a published dataset of tokens; the tokens themselves are read by any Parquet reader.

What a tokenizer does belongs to `neuralpile_dagster.motifs`, which is imported only when one is opened: it needs numba.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.reading.sources import Repository, open_repository

if TYPE_CHECKING:
    from neuralpile_dagster.motifs.tokens import Tokenizer


def open_tokenizer(source: str | Path, revision: str | None = None) -> Tokenizer:
    """Open the tokenizer that a dataset of tokens was made with; reads two small files.

    Parameters
    ----------
    source : str or Path
        A folder of a local hub or a copy of one, ``owner/name`` on the Hugging Face Hub (HF_TOKEN and HF_ENDPOINT are
        heeded), or ``s3://bucket/prefix`` (``AWS_*`` are heeded).
    revision : str, optional
        Branch, tag or commit on the Hugging Face Hub, main when not given.

    Returns
    -------
    neuralpile_dagster.motifs.Tokenizer

    Raises
    ------
    HubError, StoreError
        There is no such dataset, or it has no tokenizer.
    DocumentError, TableError
        The files are damaged, or of a newer version.
    TransientError
        The hub or S3 cannot be reached now.
    """
    from neuralpile_dagster.motifs.tokens import Tokenizer
    from neuralpile_dagster.motifs.vocabulary import TOKENIZER_FILE, VOCABULARY_FILE, parse_document, parse_vocabulary

    if Path(source).expanduser().is_file():
        raise _no_tokenizer(str(source), "a file")
    repository = open_repository(source, revision)
    if not repository.has(TOKENIZER_FILE):
        raise _no_tokenizer(repository.place, f"no {TOKENIZER_FILE}")
    document, vocabulary = (_content(repository, path) for path in (TOKENIZER_FILE, VOCABULARY_FILE))
    found = parse_vocabulary(
        parse_document(document, f"{repository.place}/{TOKENIZER_FILE}"),
        pa.BufferReader(vocabulary),
        f"{repository.place}/{VOCABULARY_FILE}",
        hashlib.sha256(vocabulary).hexdigest(),
    )
    return Tokenizer(found)


def _no_tokenizer(place: str, found: str) -> HubError:
    return HubError(
        f"{place} is no tokenized pile",
        found=found,
        expected="a folder or repository with tokenizer.json and vocabulary.parquet",
        remedy="name that of a pile's tokens, <pile>-1x15-32k or with another shape or size",
    )


def _content(repository: Repository, path: str) -> bytes:
    """A small file, whole."""
    with repository.open(path, whole=True) as file:
        return bytes(file.readall())
