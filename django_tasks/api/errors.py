"""What does the API say when something goes wrong? What Django REST framework says, and a `code` for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import Http404
from django.utils.translation import gettext_lazy as _
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound, PermissionDenied, ValidationError
from rest_framework.response import Response

from django_tasks.exceptions import BrokerFull, PublishError, StoreUnavailable

Handler = Callable[[Exception, dict[str, Any]], Response | None]


class Unavailable(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = _("Tasks cannot be reached at the moment; try again later.")
    default_code = "unavailable"


class QueueFull(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = _("The queue takes no more tasks at the moment; try again later.")
    default_code = "queue_full"


class NotListed(APIException):
    status_code = status.HTTP_501_NOT_IMPLEMENTED
    default_detail = _("Results are kept where they cannot be listed; ask for a task by its id.")
    default_code = "not_listed"


class Conflict(APIException):
    """The task is not in a state in which this can be done."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class KeyReused(APIException):
    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_detail = _("This Idempotency-Key was used for another call.")
    default_code = "idempotency_key_reused"


def with_code(handler: Handler) -> Handler:
    """Return a handler that answers as the project's own one does, and adds the code."""

    def handle(error: Exception, context: dict[str, Any]) -> Response | None:
        error = _as_answer(error)
        response = handler(error, context)
        if response is not None and isinstance(response.data, dict):
            response.data.setdefault("code", _code(error))
        return response

    return handle


def _as_answer(error: Exception) -> Exception:
    match error:
        case BrokerFull():
            return QueueFull()
        # What a driver says may tell where the server is.
        case PublishError() | StoreUnavailable() | OperationalError() | InterfaceError():
            return Unavailable()
        case _:
            return error


def _code(error: Exception) -> str:
    match error:
        case ValidationError():
            return "invalid"
        case APIException():
            codes = error.get_codes()
            return codes if isinstance(codes, str) else error.default_code
        case Http404():
            return NotFound.default_code
        case _:
            return PermissionDenied.default_code
