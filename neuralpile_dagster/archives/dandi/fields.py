"""Fields of documents that a server sends, read one by one.

An invalid field costs that field and leaves a note; the rest of the document is read.
What the fields of an archive are belongs to that archive's own module.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


@dataclass
class _Invalid:
    """The first document in which a field is invalid, what it has there, and how many such documents there are."""

    where: str
    found: str
    documents: int = 0


class FieldReader:
    """Reads fields of documents, and notes those that are invalid.

    Where a method takes a ``form``, that is a `pydantic.TypeAdapter` which accepts None if the field may be
    missing; ``where`` is the name of the document, for the note.
    """

    def __init__(self) -> None:
        self._invalid: dict[str, _Invalid] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence per field that is invalid somewhere."""
        notes = []
        for field, invalid in sorted(self._invalid.items()):
            others = f" (and {invalid.documents - 1:,} more)" if invalid.documents > 1 else ""
            notes.append(f"invalid {field} of {invalid.where}{others}, not used: {invalid.found}")
        return tuple(notes)

    def read(self, form: TypeAdapter[T], document: Mapping[str, Any], field: str, where: str) -> T | None:
        """The value of a field; None, with a note, when it is invalid."""
        try:
            return form.validate_python(document.get(field), strict=True)
        except ValidationError as error:
            self._note(field, where, error)
            return None

    def read_items(self, form: TypeAdapter[T], document: Mapping[str, Any], field: str, where: str) -> list[T]:
        """The valid items of a field that is a list; see `read`."""
        items: list[T] = []
        first: ValidationError | None = None
        for item in self.read(_LIST, document, field, where) or ():
            try:
                items.append(form.validate_python(item, strict=True))
            except ValidationError as error:
                first = first or error
        if first is not None:
            self._note(field, where, first)
        return items

    def note(self, field: str, where: str, found: object, expected: str) -> None:
        """Note that a field of a document is invalid."""
        invalid = _Invalid(where, f"found {short(found)}, expected {expected}")
        self._invalid.setdefault(field, invalid).documents += 1

    def _note(self, field: str, where: str, error: ValidationError) -> None:
        first = error.errors(include_url=False, include_context=False)[0]
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        place = ".".join(map(str, first["loc"]))
        self.note(field, where, first["input"], f"{expected} (at {place})" if place else expected)


def short(value: object) -> str:
    """A value of any size in a few words."""
    return _SHORT.repr(value)


def valid(form: TypeAdapter[T], value: object) -> T | None:
    """The value where it has that form, else None."""
    try:
        return form.validate_python(value, strict=True)
    except ValidationError:
        return None


_LIST: TypeAdapter[list[Any]] = TypeAdapter(list[Any])
