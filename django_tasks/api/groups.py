"""What does the API say of a group of tasks? How far it is, and a page of its members."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.http import Http404
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from django_tasks.api.documents import Document, row_of
from django_tasks.api.pages import LARGEST, SIZE
from django_tasks.api.serializers import MemberPage
from django_tasks.api.views import TaskAPI
from django_tasks.connections import results
from django_tasks.display import free_text
from django_tasks.listing import HEAVY_RESULT, WINDOW, result_database
from django_tasks.message import valid_id
from django_tasks.models import TaskGroup, TaskResult
from django_tasks.workflows import Member, failures, find_group, first_failure, members, stage


class GroupView(TaskAPI):
    """`GET`: one group of tasks, and `?page_size=` of its members from the one with the number `?start=` on."""

    serializer_class = MemberPage

    def get(self, request: Request, group_id: str) -> Response:
        asked = self.understood(request.query_params.dict())
        row = find_group(group_id) if valid_id(group_id) else None
        if row is None or not self._may_see(row):
            raise Http404
        size = min(asked.get("page_size", SIZE), LARGEST)
        start = min(asked["start"], row.size)
        stop = min(start + size, row.size)
        return Response(
            group_document(row, self.group_url(group_id))
            | page_links(request.build_absolute_uri(), start, size, row.size)
            | {"members": [self._member(each) for each in members(row, range(start, stop), self._known)]}
        )

    def _known(self, ids: Sequence[str]) -> Iterable[TaskResult]:
        """Return those results of tasks that this user may list."""
        if result_database() is None:
            return [row_of(found) for found in results["default"].get(ids).values()]
        return self.get_queryset().filter(task_id__in=list(ids)).defer(*HEAVY_RESULT)

    def _member(self, member: Member) -> Document:
        """Return what this user may know of a member."""
        seen = member.row or member.message
        if seen is not None and not self._may_see(seen):
            return member_document(Member(member.index, "", "")) | {"state": None}
        url = self.task_url(member.id) if member.id and member.inner_id is None else None
        return member_document(member, url, None if member.inner_id is None else self.group_url(member.inner_id))

    def _may_see(self, row: Any) -> bool:
        try:
            self.check_object_permissions(self.request, row)
        except (NotAuthenticated, PermissionDenied):
            # That there is such a one is not told either.
            return False
        return True

    def group_url(self, group_id: str) -> str:
        return self.address("group-detail", group_id)


def group_document(row: TaskGroup, url: str) -> Document:
    """Return how far a group is."""
    failed = failures([row], WINDOW)[row.group_id]
    error = first_failure(row)
    return {
        "id": row.group_id,
        "url": url,
        "state": stage(row),
        "size": row.size,
        "done": row.done,
        "failed": failed.number,
        "failed_searched": failed.searched,
        "first_failure": None
        if error is None
        else {
            "index": row.failed_index,
            "id": row.failed_id,
            "type": error.type,
            "message": free_text(error.message),
        },
        "created_at": row.created_at,
        "ended_at": row.ended_at,
        "root_id": row.root_id,
        "parent_id": row.parent_id,
        "outer_id": row.outer_id,
        "outer_index": row.outer_index,
    }


def member_document(member: Member, url: str | None = None, group_url: str | None = None) -> Document:
    """Return what is known of a member."""
    return {
        "index": member.index,
        "id": member.id or None,
        "url": url,
        "group_url": group_url,
        "task": member.task or None,
        "state": member.state,
    }


def page_links(url: str, start: int, size: int, whole: int) -> Document:
    """Return the addresses of the pages after and before one, from its own."""
    return {
        "next": replace_query_param(url, "start", start + size) if start + size < whole else None,
        "previous": replace_query_param(url, "start", max(0, start - size)) if start else None,
    }
