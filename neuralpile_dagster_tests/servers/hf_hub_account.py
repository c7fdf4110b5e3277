"""What the Hub says about a token: the response of ``/api/whoami-v2``.

huggingface_hub gives it as it comes and has no class for it. The form is that of @huggingface/hub (npm),
src/types/api/api-who-am-i.ts, and of the response that its who-am-i.spec.ts expects of huggingface.co; ``roleInOrg``
as in huggingface_hub/_oauth.py; ``fineGrained`` and the kinds of entities as in the schema by which Hugging Face's
MCP server checks this response.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_TIME = "2026-01-01T00:00:00.000Z"
_Role = Literal["admin", "write", "contributor", "read", "no_access"]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Entity(_Form):
    id: str = Field(alias="_id", min_length=24, max_length=24)
    type: Literal[
        "model", "dataset", "space", "bucket", "kernel", "collection", "org", "user", "resource-group", "oauth-app"
    ]
    name: str | None = None


class _Scope(_Form):
    entity: _Entity
    permissions: list[str]


class _FineGrained(_Form):
    canReadGatedRepos: bool
    global_: list[str] = Field(alias="global")
    scoped: list[_Scope]


class _Token(_Form):
    displayName: str
    role: Literal["read", "write", "fineGrained"]
    createdAt: str
    fineGrained: _FineGrained | None = None


class _Auth(_Form):
    type: Literal["access_token"]
    accessToken: _Token


class _Organization(_Form):
    type: Literal["org"]
    id: str
    name: str
    fullname: str
    roleInOrg: _Role


class _User(_Form):
    type: Literal["user"]
    id: str
    name: str
    fullname: str
    email: str
    emailVerified: bool
    canPay: bool
    isPro: bool
    periodEnd: int | None
    avatarUrl: str
    orgs: list[_Organization]
    auth: _Auth


def whoami(
    name: str = "tester",
    orgs: dict[str, str] | None = None,
    role: str = "write",
    scoped: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """Who a token belongs to and what it may do.

    ``orgs`` maps an organization to the user's role in it; ``scoped`` maps ``type name`` of an entity to the
    permissions of a fine-grained token.
    """
    token: dict[str, Any] = {"displayName": "made for tests", "role": role, "createdAt": _TIME}
    if scoped is not None:
        entities = [dict(zip(("type", "name"), key.split(), strict=True)) for key in scoped]
        rows = [
            {"entity": {"_id": f"{number:024x}", **entity}, "permissions": permissions}
            for number, (entity, permissions) in enumerate(zip(entities, scoped.values(), strict=True))
        ]
        token["fineGrained"] = {"canReadGatedRepos": False, "global": [], "scoped": rows}
    account = {
        "type": "user",
        "id": "0" * 24,
        "name": name,
        "fullname": "A Tester",
        "email": "tester@example.org",
        "emailVerified": True,
        "canPay": False,
        "isPro": False,
        "periodEnd": None,
        "avatarUrl": "/avatars/0.svg",
        "orgs": [
            {"type": "org", "id": f"{number:024x}", "name": org, "fullname": org, "roleInOrg": role_in_org}
            for number, (org, role_in_org) in enumerate((orgs or {}).items())
        ],
        "auth": {"type": "access_token", "accessToken": token},
    }
    check_account(account)
    return account


def check_account(document: Any) -> None:
    """Raise `pydantic.ValidationError` unless the document has the form above."""
    _User.model_validate(document)
