"""Settings of an instance, read from the environment once; see README for the list."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from neuralpile_dagster.errors import ConfigurationError

DEFAULT_BIN_WIDTH_S = 0.02
DEFAULT_MAX_TOKENS = 10_000_000


@dataclass(frozen=True)
class Settings:
    """Where things are and how sessions are binned, for one instance.

    Attributes
    ----------
    home : Path
        Dagster home, store, local hub and ``catalog.yaml``.
    store : str
        A folder, or ``s3://bucket/prefix``.
    archive : str
        ``"dandi"``, ``"sample"``, or a folder of dandisets.
    hub : {"local", "hf"}
    namespace : str
        Owner of the published repositories.
    bin_width_s : float
        Seconds per bin.
    max_tokens : int
        Nominal tokens per segment.
    min_session_share : float
        Share of a dataset's sessions that must be done before automation publishes it, 0 to 1.
    """

    home: Path
    store: str
    archive: str = "dandi"
    hub: str = "local"
    namespace: str = "local"
    bin_width_s: float = DEFAULT_BIN_WIDTH_S
    max_tokens: int = DEFAULT_MAX_TOKENS
    min_session_share: float = 1.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the ``NEURALPILE_*`` variables; raises `ConfigurationError` naming the variable that is wrong."""
        env = os.environ if environment is None else environment
        home = Path(env.get("NEURALPILE_HOME") or "~/.neuralpile").expanduser().absolute()
        hub = env.get("NEURALPILE_HUB") or "local"
        if hub not in ("local", "hf"):
            raise ConfigurationError("NEURALPILE_HUB is wrong", found=hub, expected="'local' or 'hf'")
        namespace = env.get("NEURALPILE_NAMESPACE") or ("local" if hub == "local" else "")
        if not namespace:
            raise ConfigurationError(
                "NEURALPILE_NAMESPACE is not set",
                expected="the user or organization on the Hugging Face Hub that will own the datasets",
                remedy="set NEURALPILE_NAMESPACE, or NEURALPILE_HUB=local",
            )
        return cls(
            home=home,
            store=env.get("NEURALPILE_STORE") or str(home / "store"),
            archive=_archive(env.get("NEURALPILE_ARCHIVE") or "dandi"),
            hub=hub,
            namespace=namespace,
            bin_width_s=_number(env, "NEURALPILE_BIN_WIDTH", DEFAULT_BIN_WIDTH_S, 1e-4, 3600.0),
            max_tokens=int(_number(env, "NEURALPILE_MAX_TOKENS", DEFAULT_MAX_TOKENS, 1, 1e9)),
            min_session_share=_number(env, "NEURALPILE_MIN_SESSION_SHARE", 1.0, 0.0, 1.0),
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


def thread_count(environment: Mapping[str, str] | None = None) -> int:
    """Threads that one process may use: ``NEURALPILE_THREADS``, else one per core and at most 4.

    Each thread that encodes spike counts takes ~0.3 GB while it does.
    """
    env = os.environ if environment is None else environment
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(_number(env, "NEURALPILE_THREADS", min(cores, 4), 1, 1024))


def _archive(value: str) -> str:
    return value if value in ("dandi", "sample") else str(Path(value).expanduser().absolute())


def _number(env: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ConfigurationError(f"{name} is wrong", found=text, expected=f"a number from {low:g} to {high:g}")
    return value
