"""What does the site answer to?"""

from __future__ import annotations

from django.apps import apps
from django.contrib import admin
from django.urls import include, path

from testproject.words.views import ranking

urlpatterns = [path("", ranking, name="home"), path("admin/", admin.site.urls)]
if apps.is_installed("rest_framework"):
    urlpatterns.append(path("tasks/", include("django_tasks.api.urls")))
