"""The Django app: finds the project's tasks and registers the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

from django_tasks.checks import (
    check_backends,
    check_deployment,
    check_import_name,
    check_keys,
    check_settings,
    check_time_limits,
)


class DjangoTasksConfig(AppConfig):
    name = "django_tasks"
    verbose_name = _("Tasks")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import `tasks` of every installed app, so that its tasks are known by name."""
        checks.register(check_settings, "django_tasks")
        checks.register(check_import_name, "django_tasks")
        checks.register(check_backends, "django_tasks")
        checks.register(check_keys, "django_tasks")
        checks.register(check_time_limits, "django_tasks")
        checks.register(check_deployment, "django_tasks", deploy=True)
        autodiscover_modules("tasks")
