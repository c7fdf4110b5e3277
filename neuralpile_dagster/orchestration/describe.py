"""Group, kinds, tags, owners and description of assets in the UI, derived from catalog rows; signatures of factories.

Descriptions of the kinds themselves belong in `ledger.kinds`.
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
from neuralpile_dagster.markdown import doi_link, link, one_line, text
from neuralpile_dagster.orchestration.metadata.summaries import plural

OWNERS = ["team:neuralpile"]
FRESH_FOR, STALE_AFTER = timedelta(days=30), timedelta(days=90)
"""A manifest that is older gets a warning in the UI, then an error: nobody has asked the archive for news since."""
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


def asset_facts(dataset: Dataset, kind: AssetKind, factory: Callable[..., Any]) -> dict[str, Any]:
    """Keyword arguments for the asset decorators of a dataset, in ``factory``."""
    return {**spec_facts(dataset, kind, factory), "group_name": dataset.key}


def freshness_of_manifest(dataset: Dataset) -> dg.FreshnessPolicy | None:
    """How old a manifest may be; synthetic sources never change."""
    return None if dataset.synthetic else dg.FreshnessPolicy.time_window(STALE_AFTER, FRESH_FOR)


def spec_facts(dataset: Dataset, kind: AssetKind, factory: Callable[..., Any]) -> dict[str, Any]:
    """Keyword arguments for an `AssetSpec` in ``factory``; its group is passed separately."""
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
