"""The settings: each is one field with its variable, default, validation and help, read from the environment.

`Settings` are of an instance: where things are and what is made there. `ProcessSettings` are of one process, change no
result, and may differ between machines. Credentials and endpoints (``HF_TOKEN``, ``DANDI_API_URL``, ...) do not belong
here: the clients that need them read them when they need them.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from neuralpile_dagster.errors import ConfigurationError

DEFAULT_BIN_WIDTH_S = 0.02
DEFAULT_MAX_TOKENS = 10_000_000
DEFAULT_CONNECTIONS = 8
DEFAULT_CACHE_BYTES = 50_000_000_000

_SETTING = "setting"
_PREFIX = "NEURALPILE_"
_TYPO = 0.8
"""Likeness to a variable's name, as `difflib` has it, from which another name is taken for a typing error."""
_NAME = re.compile(r"^(?!.*(--|\.\.|\.git$))[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
"""What every hub takes."""


@dataclass(frozen=True)
class Setting:
    """How a field is read from the environment, and what the documentation says of it.

    Attributes
    ----------
    variable : str
        The environment variable; set to nothing or to spaces it counts as not set. Spaces around a value are cut off.
    help : str
        One line of Markdown.
    parse : callable
        The value of a text; raises `ValueError` with what is expected instead.
    derive : callable, optional
        The value when the variable is not set, from those of the fields before; without it, the field's default.
    default_in_words : str, optional
        The default in words, where the value itself would not say it.
    """

    variable: str
    help: str
    parse: Callable[[str], Any] = str
    derive: Callable[[Mapping[str, Any]], Any] | None = None
    default_in_words: str = ""

    def value(self, text: str) -> Any:
        """The value of a text; raises `ConfigurationError` naming the variable."""
        try:
            return self.parse(text)
        except ValueError as error:
            raise ConfigurationError(f"{self.variable} is invalid", found=text, expected=str(error)) from None


def _number(low: float, high: float, whole: bool = False) -> Callable[[str], Any]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (whole and not value.is_integer()):
            raise ValueError(
                f"a whole number from {low:,} to {high:,}" if whole else f"a number from {low:g} to {high:g}"
            )
        return int(value) if whole else value

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(" or ".join(repr(choice) for choice in choices))
        return text

    return parse


def _hub_name(longest: int) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if len(text) > longest or not _NAME.match(text):
            raise ValueError(
                f"at most {longest} letters, digits and ._- , beginning and ending with a letter or digit, without "
                "'--', '..' or a final '.git'"
            )
        return text

    return parse


def _switch(text: str) -> bool:
    choice = text.lower()
    if choice not in ("0", "false", "no", "1", "true", "yes"):
        raise ValueError("1 or 0")
    return choice in ("1", "true", "yes")


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _archive(text: str) -> str:
    if text in ("dandi", "sample"):
        return text
    if not re.search(r"[/\\~]", text) and not _folder(text).exists():
        raise ValueError("'dandi', 'sample', or a folder: one that exists here, or a path with a slash")
    return str(_folder(text))


def _namespace(before: Mapping[str, Any]) -> str:
    if before.get("hub", "local") == "local":
        return "local"
    raise ConfigurationError(
        "NEURALPILE_NAMESPACE is not set",
        expected="the user or organization on the Hugging Face Hub that will own the datasets",
        remedy="set NEURALPILE_NAMESPACE, or NEURALPILE_HUB=local",
    )


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4)


def _setting(
    variable: str,
    help: str,
    parse: Callable[[str], Any] = str,
    derive: Callable[[Mapping[str, Any]], Any] | None = None,
    default_in_words: str = "",
    **default: Any,
) -> Any:
    """A field that is a `Setting`; ``default`` (or ``default_factory``) is the field's."""
    return field(metadata={_SETTING: Setting(variable, help, parse, derive, default_in_words)}, **default)


class _FromEnvironment:
    """A class of settings, each field of which describes its `Setting`."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the ``NEURALPILE_*`` variables; raises `ConfigurationError` naming the variable that is wrong.

        They are those of `os.environ` unless another environment is given. A name that is nearly one of them is wrong.
        """
        env = os.environ if environment is None else environment
        _require_no_typo(env)
        values: dict[str, Any] = {}
        for described in fields(cls):  # type: ignore[arg-type]
            setting: Setting = described.metadata[_SETTING]
            if text := env.get(setting.variable, "").strip():
                values[described.name] = setting.value(text)
            elif setting.derive:
                values[described.name] = setting.derive(values)
        return cls(**values)


@dataclass(frozen=True)
class Settings(_FromEnvironment):
    """Where things are and how sessions are binned, for one instance."""

    home: Path = _setting(  # noqa: RUF009 (a field)
        "NEURALPILE_HOME",
        "Dagster home, store, local hub, `catalog.yaml`",
        _folder,
        derive=lambda _: _folder("~/.neuralpile"),
        default_in_words="`~/.neuralpile`",
    )
    store: str = _setting(
        "NEURALPILE_STORE",
        "a folder, or `s3://bucket/prefix`",
        derive=lambda before: str(before["home"] / "store"),
        default_in_words="`<home>/store`",
    )
    archive: str = _setting(
        "NEURALPILE_ARCHIVE",
        "`dandi` (figshare datasets come from figshare), `sample` (synthetic), or a folder of dandisets",
        _archive,
        default="dandi",
    )
    hub: str = _setting("NEURALPILE_HUB", "`local` (`<home>/hub`), or `hf`", _one_of("local", "hf"), default="local")
    namespace: str = _setting(
        "NEURALPILE_NAMESPACE",
        "owner of the repositories; required for `hf`",
        _hub_name(96),
        derive=_namespace,
        default_in_words="`local`",
        default="local",
    )
    bin_width_s: float = _setting(
        "NEURALPILE_BIN_WIDTH",
        "seconds per bin: of the whole instance, part of store paths and hub names",
        _number(1e-4, 3600.0),
        default=DEFAULT_BIN_WIDTH_S,
    )
    max_tokens: int = _setting(
        "NEURALPILE_MAX_TOKENS",
        "nominal tokens per segment: of the whole instance, part of store paths and hub names",
        _number(1, 1_000_000_000, whole=True),
        default=DEFAULT_MAX_TOKENS,
    )
    min_session_share: float = _setting(
        "NEURALPILE_MIN_SESSION_SHARE",
        "share of a dataset's sessions from which automation publishes it",
        _number(0.0, 1.0),
        default=1.0,
    )
    pile_name: str = _setting(
        "NEURALPILE_PILE_NAME", "name of the merged pile's repository", _hub_name(60), default="neural-pile"
    )
    catalog: str = _setting(
        "NEURALPILE_CATALOG",
        "`published`: the datasets of the published piles; `all`: further ones too, or name some: `claar,icms`",
        default="published",
    )

    @property
    def variant(self) -> str:
        """Suffix of store paths and repository names when binning is not the default; else empty."""
        parts = []
        if self.bin_width_s != DEFAULT_BIN_WIDTH_S:
            parts.append(f"bin{self.bin_width_s * 1000:g}ms")
        if self.max_tokens != DEFAULT_MAX_TOKENS:
            parts.append(f"max{self.max_tokens}")
        return "".join("-" + part for part in parts)


@dataclass(frozen=True)
class ProcessSettings(_FromEnvironment):
    """What one process may use, and how it publishes."""

    threads: int = _setting(
        "NEURALPILE_THREADS",
        "threads per process; each takes up to 40 MB while it bins and encodes spike counts",
        _number(1, 1024, whole=True),
        default_in_words="one per core, at most 4",
        default_factory=_threads,
    )
    connections: int = _setting(
        "NEURALPILE_CONNECTIONS",
        "requests to an archive at a time, per step",
        _number(1, 64, whole=True),
        default=DEFAULT_CONNECTIONS,
    )
    cache_bytes: int = _setting(
        "NEURALPILE_CACHE_BYTES",
        "limit of the cache of whole files (`access: download`)",
        _number(0, 1 << 60, whole=True),
        default=DEFAULT_CACHE_BYTES,
    )
    private: bool = _setting(
        "NEURALPILE_PRIVATE", "1 makes new repositories on the Hugging Face Hub private", _switch, default=False
    )


def _require_no_typo(environment: Mapping[str, str]) -> None:
    known = [variable.removeprefix(_PREFIX) for variable, _, _ in documented()]
    for name, text in environment.items():
        own = name.removeprefix(_PREFIX)
        if own == name or own in known or not text.strip():
            continue
        if meant := difflib.get_close_matches(own, known, n=1, cutoff=_TYPO):
            raise ConfigurationError(
                f"{name} is not a setting", expected=_PREFIX + meant[0], remedy="correct its name, or unset it"
            )


def documented() -> Iterator[tuple[str, str, str]]:
    """Variable, default and help of every setting, in Markdown."""
    for described in (*fields(Settings), *fields(ProcessSettings)):
        setting: Setting = described.metadata[_SETTING]
        value = described.default
        shown = f"`{value}`" if isinstance(value, str) else f"{int(value) if isinstance(value, bool) else value}"
        yield setting.variable, setting.default_in_words or shown, setting.help
