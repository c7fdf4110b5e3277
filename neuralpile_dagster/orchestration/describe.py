"""What Dagster is given of an asset by its catalog row: group, kinds, tags, owners, description; pool and batch size.

Limits of pools are set in dagster.yaml or the UI; descriptions of the kinds themselves belong in `ledger.kinds`. The
signatures of factories are here too.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import CodeType, FunctionType
from typing import Any, TypeVar

import dagster as dg

from neuralpile_dagster.catalog.describe import paper_link, recorded, untested
from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile, as_published
from neuralpile_dagster.ledger.kinds import AssetKind
from neuralpile_dagster.markdown import doi_link, link, one_line, plural, text

OWNERS = ["team:neuralpile"]
FRESH_FOR, STALE_AFTER = timedelta(days=30), timedelta(days=90)
"""A manifest that is older gets a warning in the UI, then an error: nobody has asked the archive for news since."""
ARCHIVE_POOL = "neuralpile_archive"
"""Steps that read from an archive; times the connections per step, this is the load of the archive."""
LARGE_POOL = "neuralpile_large_sessions"
"""Steps that read and bin sessions so large that a step needs 1 to 2 GB; they read from the archive as well."""
LARGE_TOKENS = 500_000_000
"""Tokens per session, as published, from which a dataset's sessions count as large."""
BATCH_TOKENS = 500_000_000
"""Tokens of a batch of short sessions: half a minute of one core, several times what a run takes to start."""
FEWEST, MOST = 10, 200
"""Sessions of a batch: few of long ones, which workers share; of the shortest, what a run's page can show."""
UNKNOWN = 15
"""Sessions of a batch when their length is unknown."""
LARGE_LIMIT = 2
"""Default limit of `LARGE_POOL`: as many steps as fit a machine with 8 GB."""
HUB_POOL = "neuralpile_hub"
"""Steps that publish."""
Made = TypeVar("Made", bound=Callable[..., object])
_SIGNATURES: dict[CodeType, inspect.Signature] = {}
_MARKUP = str.maketrans("*`<>", "    ")


def _text(dataset: Dataset, kind: AssetKind) -> str:
    """Markdown description; lists of assets show its beginning as plain text, so there is no markup in that."""
    where = [f"Source: {link(dataset.source.label, dataset.source.url)}"]
    where += [f"species: {text(dataset.species)}"] if dataset.species else []
    where += [f"data: {doi_link(dataset.doi)}"] if dataset.doi else []
    where += [f"paper: {paper}"] if (paper := paper_link(dataset)) else []
    parts = [
        one_line(dataset.title).translate(_MARKUP),
        "SYNTHETIC: recordings made by a generator, not data of any brain." if dataset.synthetic else "",
        kind.text,
        text(dataset.description, 2000),
        " ".join(untested(dataset)),
        " · ".join(where),
        " · ".join(f"{what}: {text(words, 2000)}" for what, words in recorded(dataset).items()),
        _published(dataset),
        "\n".join(f"- {text(note, 2000)}" for note in dataset.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _published(dataset: Dataset) -> str:
    """Numbers of the published pile, which checks compare with ours."""
    numbers = {
        "session": dataset.sessions_published,
        "subject": dataset.subjects_published,
        "token": dataset.tokens_published,
    }
    known = [plural(number, noun) for noun, number in numbers.items() if number is not None]
    expected = dataset.sessions_expected
    words = [f"In the published pile: {', '.join(known)}."] if known else []
    if expected == "unknown":
        words.append("How many sessions there are is not settled.")
    elif expected is not None and expected != dataset.sessions_published:
        words.append(f"The session rule should give {plural(expected, 'session')}.")
    return " ".join(words)


def code_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """Metadata that links an asset to the function that defines it.

    `dagster.with_source_code_references` reads and splits the source of every asset's function into tokens, which took
    a tenth of the time in which the code location loads.
    """
    code = factory.__code__
    place = dg.LocalFileCodeReference(file_path=code.co_filename, line_number=code.co_firstlineno)
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[place])}


def signed(function: Made) -> Made:
    """Give a function of a factory the signature of the first that the factory made, as ``__signature__``.

    Python and Dagster (`dagster._core.decorator_utils`) take it from there. Dagster asks for the signature some
    seventeen times as it makes an asset, and each time Python finds it anew: a fourth of the time in which 43
    datasets' definitions were made. What a factory makes differs by what it encloses, not by its parameters.
    """
    assert isinstance(function, FunctionType)
    if function.__code__ not in _SIGNATURES:
        _SIGNATURES[function.__code__] = inspect.signature(function, eval_str=True)
    function.__signature__ = _SIGNATURES[function.__code__]  # type: ignore[attr-defined]
    return function


def freshness_of_manifest(dataset: Dataset) -> dg.FreshnessPolicy | None:
    """How old a manifest may be; synthetic sources never change."""
    return None if dataset.synthetic else dg.FreshnessPolicy.time_window(STALE_AFTER, FRESH_FOR)


def asset_facts(dataset: Dataset, kind: AssetKind, factory: Callable[..., Any]) -> dict[str, Any]:
    """Keyword arguments for the asset decorators and an `AssetSpec` of a dataset, in ``factory``."""
    links = {"source": dg.MetadataValue.url(dataset.source.url)} if dataset.source.url else {}
    if dataset.paper:
        links["paper"] = dg.MetadataValue.url(dataset.paper)
    numbers = {
        "tokens_published": dataset.tokens_published,
        "sessions_published": dataset.sessions_published,
        "sessions_expected": dataset.sessions_due,
    }
    return {
        "description": _text(dataset, kind),
        "kinds": {*kind.badges, dataset.source.archive},
        "code_version": kind.version,
        "owners": OWNERS,
        "tags": {"dataset": dataset.name, "layer": kind.name, "species": _tag(dataset.species or "unknown")},
        "group_name": dataset.key,
        "metadata": {
            **links,
            **{name: value for name, value in numbers.items() if value is not None},
            **code_of(factory),
        },
    }


def _tag(text: str) -> str:
    """Text converted to a valid Dagster tag: letters, digits and ``_-.``, at most 63."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:63].strip("_.-") or "unknown"


def pile_facts(pile: Pile, kind: AssetKind, datasets: Sequence[Dataset], factory: Callable[..., Any]) -> dict[str, Any]:
    """Keyword arguments for the asset decorators of a pile, in ``factory``; ``datasets`` are its members."""
    published = as_published(datasets)
    about = f"{text(pile.title)}: {text(pile.description, 2000)}"
    about += f" As published: {published}." if published else ""
    return {
        "description": f"{kind.text}\n\n{about}",
        "kinds": set(kind.badges),
        "code_version": kind.version,
        "owners": OWNERS,
        "tags": {"dataset": pile.name, "layer": kind.name},
        "group_name": pile.key,
        "metadata": {**({"in_the_published_pile": published} if published else {}), **code_of(factory)},
    }


def session_pool(dataset: Dataset) -> str:
    """The pool of a dataset's sessions."""
    tokens = _tokens_per_session(dataset)
    return LARGE_POOL if tokens and tokens >= LARGE_TOKENS else ARCHIVE_POOL


def pool_of(kind: AssetKind, dataset: Dataset | None) -> str | None:
    """The pool of a kind of asset."""
    if kind.pool == "sessions" and dataset is not None:
        return session_pool(dataset)
    return {"archive": ARCHIVE_POOL, "sessions": ARCHIVE_POOL, "hub": HUB_POOL}[kind.pool] if kind.pool else None


def batch_size(dataset: Dataset) -> int:
    """Sessions per run of a backfill: short ones share a run's start-up, long ones are spread over workers."""
    tokens = _tokens_per_session(dataset)
    return UNKNOWN if tokens is None else min(max(FEWEST, round(BATCH_TOKENS / tokens)), MOST)


def _tokens_per_session(dataset: Dataset) -> float | None:
    tokens, sessions = dataset.tokens_published, dataset.sessions_due
    return tokens / sessions if tokens and sessions else None
