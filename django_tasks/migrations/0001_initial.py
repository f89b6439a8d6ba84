"""Which tables does the first release have?"""

from typing import Any

import django.utils.timezone
from django.db import migrations, models

import django_tasks.schema

# A queue's rows live for seconds: by the defaults, dead ones would be a fifth of a long queue before they are removed.
AUTOVACUUM = "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000"


def vacuum_often(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        table = apps.get_model("django_tasks", "QueuedMessage")._meta.db_table
        schema_editor.execute(f"ALTER TABLE {schema_editor.quote_name(table)} SET ({AUTOVACUUM})")


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="QueuedMessage",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False, verbose_name="number")),
                ("task_id", django_tasks.schema.NameField(max_length=255, verbose_name="task id")),
                ("broker", django_tasks.schema.NameField(default="default", max_length=64, verbose_name="broker")),
                ("queue", django_tasks.schema.NameField(max_length=128, verbose_name="queue")),
                ("rank", models.SmallIntegerField(default=0, verbose_name="rank")),
                ("ready", models.BooleanField(default=True, verbose_name="ready")),
                ("visible_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="visible at")),
                ("lease_token", models.BigIntegerField(editable=False, null=True, verbose_name="lease token")),
                (
                    "leased_by",
                    django_tasks.schema.NameField(blank=True, default="", max_length=255, verbose_name="leased by"),
                ),
                ("deliveries", models.IntegerField(default=0, verbose_name="deliveries")),
                ("task", django_tasks.schema.NameField(max_length=255, verbose_name="task")),
                ("headers", django_tasks.schema.LongTextField(default="{}", verbose_name="headers")),
                ("body", models.BinaryField(verbose_name="body")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created at")),
            ],
            options={
                "verbose_name": "waiting message",
                "verbose_name_plural": "waiting messages",
                "permissions": [
                    ("run_now_queuedmessage", "Can make delayed messages ready"),
                    ("purge_queuedmessage", "Can purge queues"),
                ],
                "indexes": [
                    django_tasks.schema.PartIndex(
                        fields=["broker", "queue", "rank", "id"],
                        flag="ready",
                        name="django_tasks_queued_ready",
                        value=True,
                    ),
                    django_tasks.schema.PartIndex(
                        fields=["broker", "visible_at"], flag="ready", name="django_tasks_queued_due", value=False
                    ),
                ],
                "constraints": [models.UniqueConstraint(fields=("task_id",), name="django_tasks_queued_id")],
            },
        ),
        migrations.RunPython(vacuum_often, migrations.RunPython.noop),
        migrations.CreateModel(
            name="TaskResult",
            fields=[
                (
                    "task_id",
                    django_tasks.schema.NameField(
                        max_length=255, primary_key=True, serialize=False, verbose_name="task id"
                    ),
                ),
                ("state", django_tasks.schema.NameField(max_length=64, verbose_name="state")),
                ("task", django_tasks.schema.NameField(blank=True, default="", max_length=255, verbose_name="task")),
                ("queue", django_tasks.schema.NameField(blank=True, default="", max_length=128, verbose_name="queue")),
                (
                    "worker",
                    django_tasks.schema.NameField(blank=True, default="", max_length=255, verbose_name="worker"),
                ),
                ("args_repr", django_tasks.schema.LongTextField(blank=True, default="", verbose_name="arguments")),
                (
                    "kwargs_repr",
                    django_tasks.schema.LongTextField(blank=True, default="", verbose_name="keyword arguments"),
                ),
                ("value", django_tasks.schema.LongTextField(null=True, verbose_name="value")),
                (
                    "error_type",
                    django_tasks.schema.NameField(blank=True, default="", max_length=255, verbose_name="error type"),
                ),
                (
                    "error_module",
                    django_tasks.schema.NameField(blank=True, default="", max_length=255, verbose_name="error module"),
                ),
                (
                    "error_message",
                    django_tasks.schema.LongTextField(blank=True, default="", verbose_name="error message"),
                ),
                ("error_args", django_tasks.schema.LongTextField(null=True, verbose_name="error arguments")),
                ("error_notes", django_tasks.schema.LongTextField(blank=True, default="", verbose_name="error notes")),
                ("traceback", django_tasks.schema.LongTextField(blank=True, default="", verbose_name="traceback")),
                ("retries", models.IntegerField(default=0, verbose_name="retries")),
                ("attempts", models.IntegerField(default=0, verbose_name="attempts")),
                ("runtime", models.FloatField(null=True, verbose_name="run time")),
                ("created_at", models.DateTimeField(null=True, verbose_name="created at")),
                ("started_at", models.DateTimeField(null=True, verbose_name="started at")),
                ("ended_at", models.DateTimeField(null=True, verbose_name="ended at")),
                ("root_id", django_tasks.schema.NameField(max_length=255, null=True, verbose_name="root id")),
                ("parent_id", django_tasks.schema.NameField(max_length=255, null=True, verbose_name="parent id")),
                ("group_id", django_tasks.schema.NameField(max_length=255, null=True, verbose_name="group id")),
                ("history", django_tasks.schema.LongTextField(blank=True, default="", verbose_name="history")),
                ("message", django_tasks.schema.LongTextField(null=True, verbose_name="message")),
            ],
            options={
                "verbose_name": "result",
                "verbose_name_plural": "results",
                "permissions": [
                    ("view_payload", "Can see arguments and results of tasks"),
                    ("retry_taskresult", "Can retry tasks"),
                    ("revoke_taskresult", "Can revoke tasks"),
                ],
                "indexes": [
                    models.Index(fields=["ended_at"], name="django_tasks_result_ended"),
                    models.Index(fields=["state", "ended_at"], name="django_tasks_result_state"),
                    models.Index(fields=["task", "ended_at"], name="django_tasks_result_task"),
                ],
            },
        ),
        migrations.CreateModel(
            name="WorkerNode",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False, verbose_name="number")),
                ("name", django_tasks.schema.NameField(max_length=255, unique=True, verbose_name="name")),
                ("session", django_tasks.schema.NameField(max_length=36, verbose_name="session")),
                ("host", models.CharField(blank=True, default="", max_length=255, verbose_name="host")),
                ("pid", models.IntegerField(default=0, verbose_name="process id")),
                ("pool", models.CharField(blank=True, default="", max_length=255, verbose_name="pool")),
                ("concurrency", models.IntegerField(default=0, verbose_name="concurrency")),
                (
                    "queues",
                    django_tasks.schema.LongTextField(
                        blank=True, default="", help_text="Comma separated.", verbose_name="queues"
                    ),
                ),
                ("broker", django_tasks.schema.NameField(default="default", max_length=64, verbose_name="broker")),
                ("version", models.CharField(blank=True, default="", max_length=64, verbose_name="version")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("starting", "starting"),
                            ("running", "running"),
                            ("stopping", "stopping"),
                            ("offline", "offline"),
                        ],
                        default="starting",
                        max_length=16,
                        verbose_name="status",
                    ),
                ),
                ("started_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="started at")),
                (
                    "heartbeat_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="last heartbeat"),
                ),
                ("processed", models.BigIntegerField(default=0, verbose_name="processed")),
                ("failed", models.BigIntegerField(default=0, verbose_name="failed")),
                ("running", django_tasks.schema.LongTextField(default="[]", verbose_name="running")),
            ],
            options={"verbose_name": "worker", "verbose_name_plural": "workers"},
        ),
        migrations.CreateModel(
            name="Crash",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False, verbose_name="number")),
                ("task_id", django_tasks.schema.NameField(max_length=255, verbose_name="task id")),
                (
                    "worker",
                    django_tasks.schema.NameField(blank=True, default="", max_length=255, verbose_name="worker"),
                ),
                ("attempt", models.IntegerField(default=0, verbose_name="attempt")),
                ("reason", django_tasks.schema.LongTextField(blank=True, default="", verbose_name="reason")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created at")),
            ],
            options={
                "verbose_name": "crash",
                "verbose_name_plural": "crashes",
                "indexes": [models.Index(fields=["task_id"], name="django_tasks_crash_task")],
            },
        ),
        migrations.CreateModel(
            name="Revocation",
            fields=[
                (
                    "task_id",
                    django_tasks.schema.NameField(
                        max_length=255, primary_key=True, serialize=False, verbose_name="task id"
                    ),
                ),
                ("terminate", models.BooleanField(default=False, verbose_name="terminate")),
                ("reason", django_tasks.schema.LongTextField(blank=True, default="", verbose_name="reason")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created at")),
            ],
            options={"verbose_name": "revocation", "verbose_name_plural": "revocations"},
        ),
    ]
