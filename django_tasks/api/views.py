"""What does each address of the API do?

Every view can be subclassed: `permission_classes` and `needed` say who may use it, `get_queryset` which results a user
finds in the list, and the object permissions of `permission_classes` which single task (a result, or a message that
waits) a user may see and act on: others do not exist for that user.
"""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from django.db import connections, transaction
from django.db.models import QuerySet
from django.http import Http404
from django.urls import reverse
from django.utils.cache import get_conditional_response, patch_cache_control
from rest_framework import status
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.generics import GenericAPIView
from rest_framework.permissions import IsAdminUser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from django_tasks import actions, states
from django_tasks.api.documents import Document, etag, look, pending, summary, whole
from django_tasks.api.enqueuing import enqueue
from django_tasks.api.errors import Conflict, Handler, NotListed, with_code
from django_tasks.api.pages import LARGEST, SIZE, page, place, span_from
from django_tasks.api.parsers import BoundedParser
from django_tasks.api.permissions import ENQUEUE, RETRY, REVOKE, MayAct, sees_payload
from django_tasks.api.serializers import Call, Look, Nothing, Revocation, Search
from django_tasks.connections import results
from django_tasks.exceptions import ConfigurationError
from django_tasks.listing import WINDOW, ResultCriteria, find_results, result_database
from django_tasks.message import valid_id
from django_tasks.models import TaskResult


class TaskAPI(GenericAPIView[TaskResult]):
    """What all views have in common: JSON in and out, for staff, never cached."""

    permission_classes = [IsAdminUser, MayAct]
    parser_classes = [BoundedParser]
    renderer_classes = [JSONRenderer]
    needed: ClassVar[dict[str, str]] = {}
    """The permission that each method needs, beside those of `permission_classes`."""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        view: Any = super().as_view(**initkwargs)
        # Whoever waits must not do so in a transaction, and ours begin and end where they must.
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def get_exception_handler(self) -> Handler:
        return with_code(super().get_exception_handler())

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        patch_cache_control(response, private=True, no_store=True)
        return response

    def get_queryset(self) -> QuerySet[TaskResult]:
        """Return the results that this user may list."""
        database = result_database()
        if database is None:
            raise NotListed
        return TaskResult.objects.using(database)

    def understood(self, data: Any) -> dict[str, Any]:
        """Return what a request says, checked."""
        serializer = self.get_serializer(data=data)
        serializer.is_valid(raise_exception=True)
        found: dict[str, Any] = serializer.validated_data
        return found

    def task_document(self, task_id: str) -> Document:
        """Return all that this user may know of a task; 404 when there is none."""
        if not valid_id(task_id):
            raise Http404
        row, message = look(task_id)
        if row is None and message is None:
            raise Http404
        try:
            self.check_object_permissions(self.request, row or message)
        except (NotAuthenticated, PermissionDenied) as error:
            # That there is such a task is not told either.
            raise Http404 from error
        payload, url = sees_payload(self.request.user), self.task_url(task_id)
        if message is not None:
            return pending(message, url, payload=payload)
        assert row is not None
        return whole(row, url, payload=payload)

    def task_url(self, task_id: str) -> str:
        return self.address("task-detail", task_id)

    def address(self, name: str, each: str) -> str:
        """Return the address of a task or a group by the name of its view."""
        match = self.request.resolver_match
        space = f"{match.namespace}:" if match and match.namespace else ""
        return self.request.build_absolute_uri(reverse(f"{space}{name}", args=[each]))


class TaskListView(TaskAPI):
    """`GET`: results, what has not ended first, then the last ended. `POST`: enqueue a task that is declared
    `@task(api=True)`."""

    needed: ClassVar[dict[str, str]] = {"POST": ENQUEUE}
    window: ClassVar[int] = WINDOW
    """How many of the newest results are searched for what no index answers."""

    def get_serializer_class(self) -> Any:
        return Call if self.request.method == "POST" else Search

    def get(self, request: Request) -> Response:
        asked = self.understood(request.query_params.dict())
        criteria = ResultCriteria(
            state=asked["state"],
            task=asked["task"],
            queue=asked["queue"],
            worker=asked["worker"],
            since=asked.get("since"),
            until=asked.get("until"),
        )
        start = place(asked["cursor"]) if asked["cursor"] else None
        oldest_first = asked["ordering"] == "ended_at"
        within = span_from(start, oldest_first=oldest_first)
        listing = find_results(self.get_queryset(), criteria, window=self.window, within=within)
        found = page(listing, start, min(asked.get("page_size", SIZE), LARGEST), oldest_first=oldest_first)
        return Response(
            {
                **found.links(request),
                # Where no index answers, what ended before this was not searched.
                "searched_since": listing.edge,
                "results": [summary(row, self.task_url(row.task_id)) for row in found.rows],
            }
        )

    def post(self, request: Request) -> Response:
        call = self.understood(request.data)
        task_id, state = enqueue(call, request.user, request.headers.get("Idempotency-Key"))
        return _accepted(task_id, self.task_url(task_id), state=state)


class TaskView(TaskAPI):
    """`GET`: one task. `?wait=SECONDS` answers when it has ended, or after that time; at most 30 seconds."""

    serializer_class = Look
    most_waiting: ClassVar[int] = 16
    """How many requests of this process may wait at once; others are answered as if they had not asked to."""
    _places: ClassVar[threading.BoundedSemaphore] = threading.BoundedSemaphore(most_waiting)

    def get(self, request: Request, task_id: str) -> Any:
        asked = self.understood(request.query_params.dict())
        document = self.task_document(task_id)
        if asked["wait"] and document["state"] not in states.FINAL and self._wait(task_id, asked["wait"]):
            document = self.task_document(task_id)
        tag = etag(document)
        return get_conditional_response(request._request, etag=tag, response=Response(document, headers={"ETag": tag}))

    def _wait(self, task_id: str, seconds: float) -> bool:
        """Wait for the end of a task; return whether there was a place to."""
        if not self._places.acquire(blocking=False):
            return False
        try:
            results["default"].wait([task_id], seconds)
        except ConfigurationError:  # nothing is kept: there is no end to wait for
            return False
        finally:
            self._places.release()
        return True


class ActionView(TaskAPI):
    """Does something to one task."""

    def answer(self, task_id: str, report: actions.Report) -> Response:
        (answer,) = report.answers
        if answer.verdict is actions.Verdict.NOT_FOUND:
            raise Http404
        if answer.verdict is actions.Verdict.NOT_POSSIBLE:
            raise Conflict(answer.text, answer.code)
        return _accepted(task_id, self.task_url(task_id), detail=answer.text, code=answer.code)


class RevokeView(ActionView):
    """`POST`: revoke a task; with `{"terminate": true}` also while it runs."""

    serializer_class = Revocation
    needed: ClassVar[dict[str, str]] = {"POST": REVOKE}

    def post(self, request: Request, task_id: str) -> Response:
        asked = self.understood(request.data)
        self.task_document(task_id)
        return self.answer(task_id, actions.revoke([task_id], terminate=asked["terminate"]))


class RetryView(ActionView):
    """`POST`: send a task that failed, or was revoked or rejected, once more."""

    serializer_class = Nothing
    needed: ClassVar[dict[str, str]] = {"POST": RETRY}

    def post(self, request: Request, task_id: str) -> Response:
        self.understood(request.data)
        self.task_document(task_id)
        return self.answer(task_id, actions.retry([task_id]))


def _accepted(task_id: str, url: str, **told: str) -> Response:
    return Response({"id": task_id, "url": url, **told}, status=status.HTTP_202_ACCEPTED, headers={"Location": url})
