"""What of our tables differs from one database vendor to the next?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement

MYSQL_CHARSET = "CHARACTER SET utf8mb4"
"""Said for each column, since a database may have been made with a character set that lacks most of Unicode."""

BYTE_ORDER = {"postgresql": "C", "mysql": "utf8mb4_bin"}
"""Collations that compare bytes; SQLite does so by itself."""


class NameField(models.CharField):
    """Text that names something: two names are equal when their bytes are, on every vendor."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        kind = super().db_type(connection)
        if kind is None:
            return None
        if connection.vendor == "mysql":
            return f"{kind} {MYSQL_CHARSET}"
        if connection.vendor == "postgresql":
            # The same type by its other name. For "varchar" Django makes a second index on unique columns, for LIKE,
            # which the collation "C" does not need; it would cost a tenth of an insert.
            return kind.replace("varchar", "character varying")
        return kind

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        return super().db_parameters(connection) | {"collation": BYTE_ORDER.get(connection.vendor)}


class LongTextField(models.TextField):
    """Text of any length, all of Unicode on every vendor."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        kind = super().db_type(connection)
        return f"{kind} {MYSQL_CHARSET}" if connection.vendor == "mysql" else kind


class PartIndex(models.Index):
    """An index of the rows in which a flag has one value.

    Where the database has no partial indexes it holds all rows, and the flag comes first.
    """

    def __init__(self, *, flag: str, value: bool, fields: Sequence[str], name: str) -> None:
        super().__init__(fields=list(fields), name=name)
        self.flag = flag
        self.value = value

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Statement:
        if schema_editor.connection.features.supports_partial_indexes:
            condition = models.Q((self.flag, self.value))
            index = models.Index(fields=self.fields, name=self.name, condition=condition)
        else:
            index = models.Index(fields=[self.flag, *self.fields], name=self.name)
        return index.create_sql(model, schema_editor, using, **kwargs)

    def deconstruct(self) -> Any:
        path, _, kwargs = super().deconstruct()
        return path, (), {**kwargs, "flag": self.flag, "value": self.value}


# How PostgreSQL writes arrays. Given a list, the driver adapts value by value, in Python, at many times the cost.


def text_array(values: Sequence[str | None]) -> str:
    """Return texts as PostgreSQL writes an array of them."""
    if values and None not in values:
        # All at once, with NUL between them, which no text column holds. Should one be there it is refused below.
        joined = "\x00".join(values)  # type: ignore[arg-type]
        if joined.count("\x00") == len(values) - 1:
            return '{"' + _escaped(joined).replace("\x00", '","') + '"}'
    return "{" + ",".join(["NULL" if text is None else f'"{_escaped(text)}"' for text in values]) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def bytes_array(values: Sequence[bytes]) -> str:
    return "{" + ",".join([f'"\\\\x{value.hex()}"' for value in values]) + "}"


def number_array(values: Sequence[float | None]) -> str:
    return "{" + ",".join(["NULL" if number is None else str(number) for number in values]) + "}"


def time_array(values: Sequence[datetime | None]) -> str:
    return "{" + ",".join(["NULL" if moment is None else f'"{moment}"' for moment in values]) + "}"
