"""What does a site answer to that has the admin and the API?"""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("api/tasks/", include("django_tasks.api.urls"))]
