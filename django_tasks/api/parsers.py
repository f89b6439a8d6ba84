"""How much of a request is read, and as what?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from django.utils.translation import gettext_lazy as _
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser

from django_tasks.serializers import LIMITS


class TooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = _("The request is larger than a task's arguments may be.")
    default_code = "too_large"


class BoundedParser(JSONParser):
    """Reads JSON, and no more of it than a message may hold: Django's own limit does not cover what is streamed."""

    limit = LIMITS.bytes

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        data = stream.read(self.limit + 1)
        if len(data) > self.limit:
            raise TooLarge
        try:
            return json.loads(data.decode("utf-8"), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise ParseError(_("The request is not valid JSON: %(reason)s") % {"reason": error}) from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
