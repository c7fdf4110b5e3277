"""Probe of the hub: whether it responds and the token may write, without writing."""

from __future__ import annotations

import os
from typing import Any

from neuralpile_dagster.doctor.model import Finding, failed, failure, not_needed, ok, warning
from neuralpile_dagster.errors import HubUnavailable
from neuralpile_dagster.settings import Settings

WRITE = "repo.write"
"""What a fine-grained token needs for the namespace: creating repositories and writing to them."""
_TOKENS = "https://huggingface.co/settings/tokens"
_WRITING_ROLES = ("admin", "write", "contributor")  # a contributor creates repositories and writes to those


def hub(settings: Settings) -> Finding:
    """Ask the Hub who the token belongs to and what it may do (``GET /api/whoami-v2``)."""
    if settings.hub == "local":
        token = "; HF_TOKEN is set, but not used" if os.environ.get("HF_TOKEN") else ""
        return not_needed(f"NEURALPILE_HUB is local: datasets are published into {settings.home / 'hub'}{token}")
    from neuralpile_dagster.hub.huggingface.hub import HuggingFaceHub
    from neuralpile_dagster.net.retry import RetryPolicy

    once = RetryPolicy(attempts=1, connect_timeout_s=4.0, read_timeout_s=5.0)
    opened = HuggingFaceHub.from_environment(settings.namespace, policy=once)
    try:
        account = opened.account()
    except HubUnavailable as error:
        return failed(failure(error).found, "try again later; check HF_ENDPOINT and this machine's network if it lasts")
    return judge(account, settings.namespace, opened.endpoint)


def judge(account: dict[str, Any], namespace: str, endpoint: str) -> Finding:
    """Judge whether an account's token may publish to ``namespace``.

    Parameters
    ----------
    account : dict
        The response of ``/api/whoami-v2``: ``name``, ``orgs`` (each with ``name`` and ``roleInOrg``) and
        ``auth.accessToken`` with ``role`` (``read``, ``write`` or ``fineGrained``) and, where it is fine-grained,
        ``fineGrained.scoped``: ``entity`` (``type``, ``name``) and ``permissions`` each.
    namespace : str
    endpoint : str
    """
    name = account.get("name")
    found = f"{endpoint}: the token of {name}"
    if name != namespace:
        organizations = {each.get("name"): each for each in account.get("orgs") or ()}
        if namespace not in organizations:
            return failed(
                f"{found}, who is not a member of {namespace}",
                f"set NEURALPILE_NAMESPACE to {name} or an organization of theirs, or HF_TOKEN to a member's token",
            )
        role = organizations[namespace].get("roleInOrg")
        found += f", whose role in {namespace} is {role or 'not stated'}"
        if role is not None and role not in _WRITING_ROLES:
            return failed(found, f"ask an administrator of {namespace} for the role contributor or write")
    token = (account.get("auth") or {}).get("accessToken") or {}
    match token.get("role"):
        case "write" | "admin":
            return ok(f"{found}; it may write (writing was not tried)")
        case "read":
            return failed(f"{found}; it may only read", f"make a token that may write at {_TOKENS} and set HF_TOKEN")
        case "fineGrained":
            return _judge_scopes(token.get("fineGrained") or {}, namespace, found)
    return warning(
        f"{found}; the Hub does not say what it may do",
        "publish one small dataset first: only that shows whether the token may write",
    )


def _judge_scopes(rights: dict[str, Any], namespace: str, found: str) -> Finding:
    scopes = [
        (scope.get("entity") or {}, tuple(scope.get("permissions") or ())) for scope in rights.get("scoped") or ()
    ]
    owned = [
        right
        for entity, permissions in scopes
        if entity.get("type") in ("user", "org") and entity.get("name") == namespace
        for right in permissions
    ]
    if WRITE in owned:
        return ok(f"{found}; it is fine-grained and has {WRITE} for {namespace} (writing was not tried)")
    found += f"; it is fine-grained and has {', '.join(owned) or 'no permissions'} for {namespace}"
    single = [
        str(entity.get("name")) for entity, permissions in scopes if _is_repository_of(entity, namespace, permissions)
    ]
    remedy = f"give it write access to the repositories of {namespace} at {_TOKENS}"
    if single:
        return warning(f"{found}; it may write to {', '.join(single)} only", f"{remedy} to publish other datasets")
    if any(right.startswith("repo.") and not right.endswith(".read") for right in owned):
        return warning(f"{found}, which may or may not be enough", remedy)
    return failed(found, remedy)


def _is_repository_of(entity: dict[str, Any], namespace: str, permissions: tuple[str, ...]) -> bool:
    is_dataset = entity.get("type") == "dataset" and str(entity.get("name")).startswith(f"{namespace}/")
    return is_dataset and WRITE in permissions
