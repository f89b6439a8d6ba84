"""How is a long list given out in pages? By a cursor: no page costs more than the first."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from django_tasks.listing import EVER, Listing, Span
from django_tasks.message import valid_id
from django_tasks.models import TaskResult

SIZE, LARGEST = 50, 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: beyond the row with this id, which ended then, or has not."""

    id: str
    ended_at: datetime | None
    back: bool = False
    """Whether the page stands before that row, not after it."""

    def cursor(self) -> str:
        told = [self.id, self.ended_at and self.ended_at.isoformat(), int(self.back)]
        return urlsafe_b64encode(json.dumps(told, separators=(",", ":")).encode()).decode("ascii").rstrip("=")


def place(cursor: str) -> Place:
    """Return the place that a cursor names; ValidationError when it cannot have come from here."""
    try:
        task_id, ended_at, back = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        moment = None if ended_at is None else datetime.fromisoformat(ended_at)
        fits = moment is None or timezone.is_aware(moment + datetime.resolution) is settings.USE_TZ
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _strange() from error
    if not (fits and valid_id(task_id) and back in (0, 1)):
        raise _strange()
    return Place(task_id, moment, bool(back))


def _strange() -> ValidationError:
    return ValidationError({"cursor": [_("It is none that this list gave out.")]})


def span_from(start: Place | None, *, oldest_first: bool) -> Span:
    """Return the span in which the rows of a page that begins at a place have ended, where they have ended."""
    if start is None or start.ended_at is None:
        return EVER
    if oldest_first is not start.back:
        return start.ended_at, None
    return None, start.ended_at + datetime.resolution


@dataclass(frozen=True, slots=True)
class ListPage:
    """Some rows of a list, and where those before and after them begin."""

    rows: list[TaskResult]
    before: Place | None
    after: Place | None

    def links(self, request: Request) -> dict[str, str | None]:
        url = request.build_absolute_uri()
        return {
            "next": replace_query_param(url, "cursor", self.after.cursor()) if self.after else None,
            "previous": replace_query_param(url, "cursor", self.before.cursor()) if self.before else None,
        }


def page(listing: Listing[TaskResult], start: Place | None, size: int, *, oldest_first: bool) -> ListPage:
    """Return the page of a listing of results that begins at a place."""
    back = start is not None and start.back
    rows = _walk(listing, start, size + 1, upwards=oldest_first is not back)
    more, rows = len(rows) > size, rows[:size]
    if back:
        rows.reverse()
    if not rows:
        return ListPage(rows, None, None)
    first, last = rows[0], rows[-1]
    before = Place(first.task_id, first.ended_at, back=True) if (more if back else start is not None) else None
    after = Place(last.task_id, last.ended_at) if (back or more) else None
    return ListPage(rows, before, after)


def _walk(listing: Listing[TaskResult], start: Place | None, limit: int, *, upwards: bool) -> list[TaskResult]:
    """Return rows beyond a place; a listing goes downwards: what has not ended, then the last ended first."""
    # The last part holds what ended; there may be one before it.
    parts = [(index == len(listing.parts) - 1, part) for index, part in enumerate(listing.parts)]
    found: list[TaskResult] = []
    for ended, part in reversed(parts) if upwards else parts:
        beyond = _beyond(start, ended=ended, upwards=upwards)
        if beyond is None:
            continue
        rows: QuerySet[Any] = part.filter(beyond)
        found += (rows.reverse() if upwards else rows)[: limit - len(found)]
        if len(found) == limit:
            break
    return found


def _beyond(start: Place | None, *, ended: bool, upwards: bool) -> Q | None:
    """Return the condition for rows of a part that lie beyond a place; None when the whole part lies before it.

    That those which ended did so in `span_from` the place is known, and not said again.
    """
    if start is None:
        return Q()
    if ended is not (start.ended_at is not None):
        return Q() if ended is not upwards else None
    op = "gt" if upwards else "lt"
    beside = Q((f"task_id__{op}", start.id))
    if not ended:
        return beside
    return Q((f"ended_at__{op}", start.ended_at)) | beside
