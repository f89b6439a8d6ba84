"""Who may use the API?"""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

PAYLOAD = "django_tasks.view_payload"
"""Seeing arguments, results and tracebacks."""
ENQUEUE = "django_tasks.add_queuedmessage"
RETRY = "django_tasks.retry_taskresult"
REVOKE = "django_tasks.revoke_taskresult"


class MayAct(BasePermission):
    """Asks for the permission that the view names for a method in `needed`; methods that it does not name are free."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        needed: dict[str, str] = getattr(view, "needed", {})
        name = needed.get(request.method or "")
        return name is None or request.user.has_perm(name)


def sees_payload(user: Any) -> bool:
    """Tell whether a user may see arguments, results and tracebacks."""
    return bool(user.has_perm(PAYLOAD))
