"""YAML for people's own files: small, plain, and read as it is written.

Scalars stay text (``000017`` is not a number in base 8, ``0.10`` keeps its
zero, ``no`` is a word); the model that validates the document turns them into
numbers where it wants numbers. Aliases, tags that build objects, repeated keys,
deep nesting and large files are refused.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from neuralpile_dagster.errors import CatalogError

MAX_BYTES = 1_000_000  # a row has about 500
MAX_DEPTH = 20  # a row has 4


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` without aliases, repeated keys and guesses at types (but for null)."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed; write it out", mark)
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: None, text, or lists and dictionaries of it.

    Raises `CatalogError`, naming file and line, when the file cannot be read, is
    larger than a megabyte, or is not YAML of the plain kind that is allowed here.
    """
    if not path.is_file():
        raise CatalogError(f"{path} is not a file", expected="a YAML file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise CatalogError(
                f"{path} is too large", found=f"more than {MAX_BYTES:,} bytes", expected="a list of datasets"
            )
        return yaml.load(content.decode("utf-8-sig"), Loader=_Loader)
    except OSError as error:
        raise CatalogError(f"{path} cannot be read", found=str(error), remedy="check its permissions") from error
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path} is not text", found=str(error), expected="UTF-8") from error
    except (yaml.YAMLError, ValueError) as error:
        raise CatalogError(f"{path} is not readable as YAML", found=_where_and_what(error)) from error


def _where_and_what(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
