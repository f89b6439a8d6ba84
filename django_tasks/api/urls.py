"""Which addresses does the API have?

To change who may do what, subclass a view, give it other `permission_classes`, and route to it in place of ours.
"""

from __future__ import annotations

from django.urls import path

from django_tasks.api.groups import GroupView
from django_tasks.api.views import RetryView, RevokeView, TaskListView, TaskView

app_name = "django_tasks"

urlpatterns = [
    path("", TaskListView.as_view(), name="task-list"),
    # An id may hold a slash.
    path("groups/<path:group_id>/", GroupView.as_view(), name="group-detail"),
    path("<path:task_id>/revoke/", RevokeView.as_view(), name="task-revoke"),
    path("<path:task_id>/retry/", RetryView.as_view(), name="task-retry"),
    path("<path:task_id>/", TaskView.as_view(), name="task-detail"),
]
