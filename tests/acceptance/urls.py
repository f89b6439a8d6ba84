"""What do the workers' sites answer to? Nothing: workers serve no pages."""

from __future__ import annotations

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
