"""Remove secrets from what the doctor shows, whatever library they came through."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

_SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)$")
_PASSWORD_IN_URL = re.compile(r"://[^/\s@:]*:([^/\s@]+)@")
_UNQUOTED_PASSWORD = re.compile(r"://[^/\s@:]*:(\S+)@")  # one that should have been: a key may hold / and @
_URL_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*")  # may be a signature
_SHORTEST = 4
"""Shorter values are words of ordinary text: to remove those would tell more than it hides."""


class Redaction:
    """The secrets of an environment: values of variables named so, and passwords in URLs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        named = (value for name, value in environment.items() if _SECRET_NAME.search(name))
        patterns = (_PASSWORD_IN_URL, _UNQUOTED_PASSWORD)
        in_urls = (found for value in environment.values() for each in patterns for found in each.findall(value))
        self._secrets = _longest_first((*named, *in_urls))

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        text = _PASSWORD_IN_URL.sub("://***@", _URL_QUERY.sub(r"\1?...", text))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _longest_first(secrets: Iterable[str]) -> list[str]:
    both = {form for secret in secrets for form in (secret, unquote(secret)) if len(form) >= _SHORTEST}
    return sorted(both, key=len, reverse=True)
