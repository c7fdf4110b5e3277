"""JSON documents in the store and in repositories: their form number, their digest, and the model that all share."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from neuralpile_dagster.errors import DocumentError, NewerDocument

FORM = 1
"""Form of the documents written now: raised when an older version must not read them. Absent in a document: form 0.

Form 1: fields that this version does not know are kept (a newer version may add fields without a new form).
"""

_FORM = "form"
_DIGEST = "content_sha256"


class Model(BaseModel):
    """Base of what is stored as JSON: frozen, and strict where a program makes one.

    A stored document may have unknown fields (`read_document`): they are written again, and are in no
    ``model_dump``, so that hashes of inputs do not depend on them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyModel = TypeVar("AnyModel", bound=Model)


def document(model: Model) -> str:
    """Return a model as the text of a stored document: JSON that a person can read, with its form and digest."""
    content = {_FORM: FORM, **_with_unknown(json.loads(model.model_dump_json()), model)}
    return json.dumps({_DIGEST: content_digest(content), **content}, indent=1, ensure_ascii=False) + "\n"


def json_hash(content: Any) -> str:
    """Return the sha256 (hex) of JSON values, e.g. of all that something is made from."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def content_digest(content: dict[str, Any]) -> str:
    """Return the sha256 (hex) that a document of this content has, however its JSON is laid out; in every form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_document(text: bytes, kind: type[AnyModel], name: str) -> AnyModel:
    """Parse a stored document, keeping fields that this version does not know.

    Parameters
    ----------
    text : bytes
        From `document`, of this or another version.
    kind : type
        The `Model` that it should be.
    name : str
        How errors call the document.

    Raises
    ------
    NewerDocument
        A newer version made it.
    DocumentError
        It is damaged, or not such a document.
    """
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__} instead of an object")
    except ValueError as error:
        raise _not_a(kind, name, str(error)) from error
    stated = content.pop(_DIGEST, None)
    if stated is not None and stated != (digest := content_digest(content)):
        raise _damaged(name, f"content with sha256 {digest}", str(stated))
    form = content.pop(_FORM, 0)
    if type(form) is not int or form < 0:
        raise _not_a(kind, name, f"form {form!r}")
    if form > FORM:
        raise NewerDocument(
            f"{name} was made by a newer version of neuralpile-dagster",
            found=f"form {form}",
            expected=f"form {FORM} or older",
            remedy="upgrade neuralpile-dagster here: pip install --upgrade neuralpile-dagster",
        )
    if form and stated is None:
        raise _damaged(name, f"form {form} without {_DIGEST}", _DIGEST)
    try:
        return kind.model_validate_json(json.dumps(content), extra="allow")
    except ValueError as error:
        raise _not_a(kind, name, _first_problem(error)) from error


def _first_problem(error: ValueError) -> str:
    """First line of an error; of one of pydantic, the field and what is wrong with it."""
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _damaged(name: str, found: str, expected: str) -> DocumentError:
    return DocumentError(
        f"{name} is damaged, or was edited",
        found=found,
        expected=expected,
        remedy="restore it from a backup, or delete that file and materialize the asset that makes it",
    )


def _not_a(kind: type[Model], name: str, found: str) -> DocumentError:
    return DocumentError(
        f"{name} is not a {kind.__name__.lstrip('_')}",
        found=found,
        remedy="delete that file and materialize the asset that makes it",
    )


def _with_unknown(content: Any, value: Any) -> Any:
    """Add to what was dumped of ``value`` the unknown fields that its models were read with."""
    if isinstance(value, Model):
        fields = [name for name in type(value).model_fields if name in content]
        known = {name: _with_unknown(content[name], getattr(value, name)) for name in fields}
        return {**known, **(value.__pydantic_extra__ or {})}
    if isinstance(value, tuple):
        return [_with_unknown(*pair) for pair in zip(content, value, strict=True)]
    if isinstance(value, dict):
        return {name: _with_unknown(content[name], item) for name, item in value.items()}
    return content
