"""How does Django know the example app?"""

from __future__ import annotations

from django.apps import AppConfig


class ExampleConfig(AppConfig):
    name = "tests.app"
    label = "example"
    verbose_name = "Example"
