"""Load the catalog of an instance: the rows that come with the package, and the user's own.

A user's rows are in ``catalog.yaml`` in ``NEURALPILE_HOME``, in the form of
`Dataset`; docs/datasets/adding.md shows one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from neuralpile_dagster.catalog.beyond import BEYOND
from neuralpile_dagster.catalog.model import Dataset, SessionRule, Source, form_in_words
from neuralpile_dagster.catalog.piles import BUILT_IN, Everywhere, Pile, piles_of
from neuralpile_dagster.catalog.primate import PRIMATE
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.catalog.sample import SAMPLE
from neuralpile_dagster.catalog.sources import ARCHIVES
from neuralpile_dagster.errors import CatalogError, ConfigurationError, did_you_mean
from neuralpile_dagster.settings import Settings

USER_CATALOG = "catalog.yaml"
PUBLISHED = (*RODENT, *PRIMATE)
PACKAGE = (*PUBLISHED, *BEYOND)
"""The rows that come with the package, but for the synthetic ones."""
AnyRow = TypeVar("AnyRow", Dataset, Pile)
# models of the nested parts of a row, for suggestions of field names
_FIELDS: dict[str, type[BaseModel]] = {"source": Source, "sessions": SessionRule}
# what YAML calls the types that pydantic expects; an error's own numbers are filled in
_EXPECTED = {
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type"), "a mapping, `key: value` on each line"),
    **dict.fromkeys(("int_type", "int_parsing"), "a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "a text",
    "too_short": "a list of at least {min_length}",
}


def user_catalog_path(settings: Settings) -> Path:
    """Path of the user's own datasets."""
    return settings.home / USER_CATALOG


def load_catalog(settings: Settings) -> dict[str, Dataset]:
    """All datasets of an instance by name, in catalog order (the user's come last).

    A row of the user replaces one of the package's of that name but for the rodents': a home may have had it first.
    Of `BEYOND` there are those that ``NEURALPILE_CATALOG`` or a pile of the user names.

    Each has the ``motif_shapes`` of the piles that it is a member of, and those that its row states; and the
    ``unit_order`` of its row, else of the file's own line.

    With the sample archive these are the synthetic rows alone. Raises
    `CatalogError` when the user's ``catalog.yaml`` is invalid; without that file
    there are no rows of the user. Raises `ConfigurationError` when the pile has the name of a dataset.
    """
    own = _valid(user_catalog_path(settings))
    if settings.archive == "sample":
        rows: Sequence[Dataset] = SAMPLE
    else:
        replaced = {dataset.name for dataset in own.datasets}
        ours = (*PUBLISHED, *_beyond(settings, own.piles, replaced))
        rows = (*(row for row in ours if row.name not in replaced), *own.datasets)
    piles = _all_piles(own)
    catalog = {dataset.name: _with_lines(dataset, own.everywhere, piles) for dataset in rows}
    if settings.pile_name in {*catalog, *(pile.name for pile in BUILT_IN[1:])}:
        raise _taken_pile_name(settings)
    return catalog


def _all_piles(own: UserCatalog) -> list[Pile]:
    return [*(pile.with_lines(own.everywhere) for pile in BUILT_IN), *own.piles]


def _with_lines(dataset: Dataset, lines: Everywhere, piles: Iterable[Pile]) -> Dataset:
    shapes = [shape for pile in piles if pile.members([dataset]) for shape in pile.motif_shapes]
    every = tuple(dict.fromkeys([*dataset.motif_shapes, *shapes]))
    ordered = lines.unit_order if dataset.unit_order is None else dataset.unit_order
    if (every, ordered) == (dataset.motif_shapes, bool(dataset.unit_order)):
        return dataset
    return dataset.model_copy(update={"motif_shapes": every, "unit_order": ordered})


def _beyond(settings: Settings, piles: Iterable[Pile], own: set[str]) -> list[Dataset]:
    """The further datasets that are shown."""
    names = {name for name in re.split(r"[\s,]+", settings.catalog) if name} - {"published"}
    known = {row.name for row in BEYOND}
    for name in sorted(names - known - {"all"} - {row.name for row in PUBLISHED} - own):
        raise ConfigurationError(
            "NEURALPILE_CATALOG is invalid",
            found=name,
            expected=f"`published`, `all`, or names of {', '.join(sorted(known))}",
            remedy=did_you_mean(name, known),
        )
    every = "all" in names or any("beyond" in pile.tags for pile in piles)
    names |= {name for pile in piles for name in pile.components}
    return [row for row in BEYOND if every or row.name in names]


def find_dataset(settings: Settings, catalog: Mapping[str, Dataset], name: str) -> Dataset:
    """`get_dataset`, also of the further datasets that are not shown unless they are named."""
    if settings.archive == "sample" and name not in catalog:
        _refuse_real(settings, name)
    elif name not in catalog and name in {row.name for row in BEYOND}:
        catalog = load_catalog(replace(settings, catalog=f"{settings.catalog},{name}"))
    return get_dataset(catalog, name)


def _refuse_real(settings: Settings, name: str) -> None:
    """Raise `ConfigurationError` for the name of a dataset that the sample archive does not have."""
    own = read_user_catalog(user_catalog_path(settings)).datasets
    if name in {row.name for row in (*PACKAGE, *own)}:
        raise ConfigurationError(
            f"{name} is not in the sample archive",
            found="NEURALPILE_ARCHIVE=sample, which has synthetic recordings alone",
            expected=f"one of {', '.join(row.name for row in SAMPLE)}",
            remedy="leave NEURALPILE_ARCHIVE out to read from the dataset's own archive",
        )


def _taken_pile_name(settings: Settings) -> ConfigurationError:
    return ConfigurationError(
        "NEURALPILE_PILE_NAME is invalid",
        found=f"{settings.pile_name}, which is the name of a dataset or another pile, or with what is made of it added",
        expected="a name of its own: each has a repository",
    )


def load_piles(settings: Settings, datasets: Iterable[Dataset]) -> list[Pile]:
    """The piles of an instance that have a member among its datasets, the built-in ones first.

    Raises `CatalogError` when the user's ``catalog.yaml`` is invalid.
    """
    own = _valid(user_catalog_path(settings))
    rows, (first, *others) = list(datasets), _all_piles(own)
    made = {settings.pile_name, *(f"{settings.pile_name}-{ending}" for ending in first.endings)}
    if made & {*(row.name for row in rows), *(pile.name for pile in others)}:
        raise _taken_pile_name(settings)
    return piles_of((first, *others), rows)


def get_dataset(catalog: Mapping[str, Dataset], name: str) -> Dataset:
    """The dataset of that name; raises `ConfigurationError` with the closest names when there is none."""
    if name in catalog:
        return catalog[name]
    if name in {row.name for row in SAMPLE}:
        raise ConfigurationError(
            f"{name} is in the sample archive alone",
            expected="NEURALPILE_ARCHIVE=sample",
            remedy="set it, and NEURALPILE_HOME to the home of the sample (~/.neuralpile-demo after `neuralpile demo`)",
        )
    close = difflib.get_close_matches(name.lower().replace("_", "-"), catalog, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ConfigurationError(
        f"there is no dataset {name!r}",
        expected="" if close else f"one of {', '.join(catalog)}",
        remedy=f"{guess}`neuralpile catalog` lists all datasets; your own go into {USER_CATALOG} in NEURALPILE_HOME",
    )


@dataclass
class UserCatalog:
    """Contents of a ``catalog.yaml``: its valid rows, piles and lines that hold for all, and errors of the others."""

    everywhere: Everywhere = field(default_factory=Everywhere)
    datasets: list[Dataset] = field(default_factory=list)
    piles: list[Pile] = field(default_factory=list)
    problems: list[CatalogError] = field(default_factory=list)


def check_user_catalog(path: Path) -> list[Dataset]:
    """The rows of a ``catalog.yaml``, none when there is no such file.

    Raises one `CatalogError` with all errors found.
    """
    return _valid(path).datasets


def _valid(path: Path) -> UserCatalog:
    found = read_user_catalog(path)
    if len(found.problems) == 1:
        raise found.problems[0]
    if found.problems:
        listed = "".join(f"\n({number}) {problem}" for number, problem in enumerate(found.problems, 1))
        raise CatalogError(f"{path} has {len(found.problems)} problems:{listed}")
    return found


def read_user_catalog(path: Path) -> UserCatalog:
    """Read a ``catalog.yaml``, collecting errors instead of raising."""
    result = UserCatalog()
    if not path.exists():
        return result
    try:
        content = _top_level(path)
        rows, piles = _rows(path, content, "datasets"), _rows(path, content, "piles")
    except CatalogError as error:
        result.problems.append(error)
        return result
    lines = {name: value for name, value in content.items() if name in Everywhere.model_fields and value is not None}
    if not (wrong := list(_problems(path, "", lines, Everywhere))):
        result.everywhere = Everywhere.model_validate(lines)
    result.problems.extend(wrong)
    taken = {dataset.name: "a dataset of that name comes with the package" for dataset in (*RODENT, *SAMPLE)}
    for number, content in enumerate(rows, 1):
        if (dataset := _row(path, f"row {number}", content, Dataset, taken, result.problems)) is not None:
            result.datasets.append(dataset)
    known = {row.name for row in (*PACKAGE, *SAMPLE, *result.datasets)}
    ours = (*(row.name for row in PACKAGE), *(pile.name for pile in BUILT_IN))
    taken |= dict.fromkeys(ours, "one of that name comes with the package")
    tags = {tag for row in (*PACKAGE, *result.datasets) for tag in row.tags}
    for number, content in enumerate(piles, 1):
        pile = _row(path, f"pile {number}", content, Pile, taken, result.problems)
        if pile is not None:
            label = f"pile {number} ({pile.name!r})"
            result.problems.extend(_unknown_members(path, label, pile, known, tags))
            try:
                result.piles.append(pile if wrong else pile.with_lines(result.everywhere))
            except ValueError as error:
                result.problems.append(CatalogError(f"{path}, {label}: {error}"))
    for pile in _all_piles(result):
        for name in sorted({*taken, *known} & {f"{pile.name}-{ending}" for ending in pile.endings}):
            result.problems.append(
                CatalogError(
                    f"{path}: the name {name} is taken",
                    found=f"a dataset or pile of that name, and motifs of the pile {pile.name}, published as {name}",
                    expected="a name of its own for every dataset and pile",
                )
            )
    return result


def _row(
    path: Path, label: str, content: Any, kind: type[AnyRow], taken: dict[str, str], problems: list[CatalogError]
) -> AnyRow | None:
    """The row, or None and what is wrong with it among the problems; its name is taken from then on."""
    name = content.get("name") if isinstance(content, dict) else None
    label += f" ({name[:60]!r})" if isinstance(name, str) else ""
    found = list(_problems(path, label, content, kind))
    if isinstance(name, str) and name in taken:
        found.append(
            CatalogError(
                f"{path}, {label}, field name: the name is taken",
                found=taken[name],
                expected="a name of its own for every dataset and pile",
            )
        )
    if isinstance(name, str):
        taken.setdefault(name, f"one of that name is {label} of the same file")
    problems.extend(found)
    return None if found else kind.model_validate(content)


def _unknown_members(path: Path, label: str, pile: Pile, known: set[str], tags: set[str]) -> Iterable[CatalogError]:
    for what, given, there_are in (("components", pile.components, known), ("tags", pile.tags, tags)):
        for name in given:
            if name not in there_are:
                remedy = did_you_mean(name, there_are) or "`neuralpile catalog` lists all datasets"
                yield CatalogError(
                    f"{path}, {label}, field {what}: no dataset is or has it", found=repr(name[:60]), remedy=remedy
                )


def _top_level(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if content is None:
        return {}
    known = ["datasets", "piles", *Everywhere.model_fields]
    if not isinstance(content, dict) or not content or not set(content) <= set(known):
        unknown = [str(key) for key in content if key not in known] if isinstance(content, dict) else []
        raise CatalogError(
            f"{path} is not a catalog",
            found=f"unknown top-level keys: {', '.join(map(repr, unknown))}" if unknown else _shown(content),
            expected="one top-level key `datasets` with a list of rows (and `piles`, if you want your own, and lines "
            f"that hold for all of them: {', '.join(Everywhere.model_fields)})",
            remedy=did_you_mean(unknown[0], known) if unknown else "",
        )
    return content


def _rows(path: Path, content: dict[str, Any], key: str) -> list[Any]:
    rows = content.get(key)
    if rows is not None and not isinstance(rows, list):
        raise CatalogError(f"{path}, field {key}", found=_shown(rows), expected="a list of rows, each after a `-`")
    return rows or []


def _problems(path: Path, label: str, content: Any, kind: type[BaseModel]) -> Iterable[CatalogError]:
    if not isinstance(content, dict):
        yield CatalogError(f"{path}, {label}", found=_shown(content), expected="a row: `name: ...`, `title: ...`, ...")
        return
    try:
        row = kind.model_validate(content)
    except ValidationError as error:
        for problem in error.errors():
            yield problem_of(path, label, problem, kind)
        return
    if isinstance(row, Dataset) and row.source.facts.synthetic:
        known = " or ".join(repr(row.name) for row in ARCHIVES.values() if not row.synthetic)
        yield CatalogError(
            f"{path}, {label}, field source.archive",
            found=repr(row.source.archive),
            expected=f"{known} (also for a folder laid out like them); the sample has rows of its own",
        )


def problem_of(path: Path, label: str, error: Any, kind: type[BaseModel]) -> CatalogError:
    """Convert a pydantic error."""
    location = tuple(error["loc"])
    field_name = f"field {'.'.join(map(str, location))}" if location else ""
    where = ", ".join(part for part in (str(path), label, field_name) if part)
    if error["type"] == "missing":
        return CatalogError(f"{where}: is missing", remedy=f"add `{location[-1]}: ...`")
    if error["type"] == "extra_forbidden":
        fields = list((_FIELDS.get(".".join(map(str, location[:-1]))) or kind).model_fields)
        return CatalogError(
            f"{where}: unknown field",
            expected=f"one of {', '.join(fields)}",
            remedy=did_you_mean(str(location[-1]), fields),
        )
    message = error["msg"].removeprefix("Value error, ")
    if not location or error["type"] == "value_error":
        return CatalogError(f"{where}: {message}")
    if error["type"] in _EXPECTED:
        expected = _EXPECTED[error["type"]].format(**error.get("ctx", {}))
    elif error["type"] == "string_pattern_mismatch":
        expected = form_in_words(error["ctx"]["pattern"], error["input"])
    else:
        expected = message.removeprefix("Input should be ").removeprefix("String should ")
    return CatalogError(where, found=_shown(error["input"]), expected=expected)


def _shown(value: Any) -> str:
    """Short, printable form of any value."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` without aliases, repeated keys and guesses at types (but for null)."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [each for each in resolvers if each[0] == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # a few of them, nested, stand for gigabytes
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not allowed", problem_mark=self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                problem = f"{key.value!r} is there twice" if key.value in seen else "a key must be a word"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.append(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: None, text, or lists and dictionaries of it.

    Raises `CatalogError`, naming file and line, when the file cannot be read or is
    not YAML of the plain kind that is allowed here.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise CatalogError(f"{path} cannot be read", found=str(error), expected="a YAML file") from error
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path} is not text", found=str(error), expected="UTF-8") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, path: str) -> Any:
    """The content of YAML text, as `read_yaml` gives it; ``path`` is what errors call it."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise CatalogError(f"{path} is nested too deeply", expected="a list of datasets") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        found = f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
        raise CatalogError(f"{path} is not readable as YAML", found=found) from error
