"""Which rows does the queue keep in the database?"""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_tasks.message import ID_LENGTH, NAME_LENGTH, QUEUE_LENGTH
from django_tasks.periodic_models import BeatNode, PeriodicTask, ScheduledRun
from django_tasks.schema import LongTextField, NameField, PartIndex

__all__ = [
    "BeatNode",
    "Crash",
    "GroupMember",
    "GroupPart",
    "PeriodicTask",
    "QueuedMessage",
    "Revocation",
    "ScheduledRun",
    "ServerMark",
    "TaskGroup",
    "TaskResult",
    "WorkerNode",
]

ALIAS_LENGTH = 64
STATE_LENGTH = 64


class QueuedMessage(models.Model):
    """A message that waits or runs; acknowledging it removes the row.

    `ready` says that it may be taken now. A row that is delayed or leased is not ready, and becomes so when
    `visible_at` has passed, which takes the lease away: the end of a delay and the rescue of a dead worker's message
    are one and the same.
    """

    id = models.BigAutoField(_("number"), primary_key=True)
    task_id = NameField(_("task id"), max_length=ID_LENGTH)
    broker = NameField(_("broker"), max_length=ALIAS_LENGTH, default="default")
    queue = NameField(_("queue"), max_length=QUEUE_LENGTH)
    # Minus the priority: every column of an index goes upwards, which every vendor can read in order.
    rank = models.SmallIntegerField(_("rank"), default=0)
    ready = models.BooleanField(_("ready"), default=True)
    visible_at = models.DateTimeField(_("visible at"), default=timezone.now)
    lease_token = models.BigIntegerField(_("lease token"), null=True, editable=False)
    leased_by = NameField(_("leased by"), max_length=255, blank=True, default="")
    deliveries = models.IntegerField(_("deliveries"), default=0)
    task = NameField(_("task"), max_length=NAME_LENGTH)
    headers = LongTextField(_("headers"), default="{}")
    body = models.BinaryField(_("body"))
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        verbose_name = _("waiting message")
        verbose_name_plural = _("waiting messages")
        permissions = [
            ("run_now_queuedmessage", "Can make delayed messages ready"),
            ("purge_queuedmessage", "Can purge queues"),
        ]
        constraints = [models.UniqueConstraint(fields=["task_id"], name="django_tasks_queued_id")]
        indexes = [
            PartIndex(
                flag="ready", value=True, fields=["broker", "queue", "rank", "id"], name="django_tasks_queued_ready"
            ),
            PartIndex(flag="ready", value=False, fields=["broker", "visible_at"], name="django_tasks_queued_due"),
        ]

    def __str__(self) -> str:
        return f"{self.task}[{self.task_id}]"


class TaskResult(models.Model):
    """What is known of a task; once its state is final the row does not change."""

    task_id = NameField(_("task id"), max_length=ID_LENGTH, primary_key=True)
    state = NameField(_("state"), max_length=STATE_LENGTH)
    task = NameField(_("task"), max_length=NAME_LENGTH, blank=True, default="")
    queue = NameField(_("queue"), max_length=QUEUE_LENGTH, blank=True, default="")
    worker = NameField(_("worker"), max_length=255, blank=True, default="")
    args_repr = LongTextField(_("arguments"), blank=True, default="")
    kwargs_repr = LongTextField(_("keyword arguments"), blank=True, default="")
    # The return value, or a custom state's meta, encoded.
    value = LongTextField(_("value"), null=True)
    error_type = NameField(_("error type"), max_length=255, blank=True, default="")
    error_module = NameField(_("error module"), max_length=255, blank=True, default="")
    error_message = LongTextField(_("error message"), blank=True, default="")
    error_args = LongTextField(_("error arguments"), null=True)
    error_notes = LongTextField(_("error notes"), blank=True, default="")
    traceback = LongTextField(_("traceback"), blank=True, default="")
    retries = models.IntegerField(_("retries"), default=0)
    attempts = models.IntegerField(_("attempts"), default=0)
    runtime = models.FloatField(_("run time"), null=True)
    created_at = models.DateTimeField(_("created at"), null=True)
    started_at = models.DateTimeField(_("started at"), null=True)
    ended_at = models.DateTimeField(_("ended at"), null=True)
    root_id = NameField(_("root id"), max_length=ID_LENGTH, null=True)
    parent_id = NameField(_("parent id"), max_length=ID_LENGTH, null=True)
    group_id = NameField(_("group id"), max_length=ID_LENGTH, null=True)
    # JSON lines, one for each attempt that did not end the task, the last 64 KiB of them.
    history = LongTextField(_("history"), blank=True, default="")
    # The message of a task that failed, so that it can be sent again.
    message = LongTextField(_("message"), null=True)
    # The ids of what it sent and of what followed it, as JSON.
    children = LongTextField(_("children"), null=True)

    class Meta:
        verbose_name = _("result")
        verbose_name_plural = _("results")
        permissions = [
            ("view_payload", "Can see arguments and results of tasks"),
            ("retry_taskresult", "Can retry tasks"),
            ("revoke_taskresult", "Can revoke tasks"),
        ]
        indexes = [
            models.Index(fields=["ended_at"], name="django_tasks_result_ended"),
            models.Index(fields=["state", "ended_at"], name="django_tasks_result_state"),
            models.Index(fields=["task", "ended_at"], name="django_tasks_result_task"),
        ]

    def __str__(self) -> str:
        return f"{self.task}[{self.task_id}] {self.state}"


class TaskGroup(models.Model):
    """Tasks that run side by side, how many of them have ended, and what follows when all have."""

    group_id = NameField(_("group id"), max_length=ID_LENGTH, primary_key=True)
    size = models.IntegerField(_("size"))
    done = models.IntegerField(_("done"), default=0)
    # The messages and groups that are to be sent then, encoded.
    then = LongTextField(_("what follows"), blank=True, default="")
    # Where the group itself is a member of another one.
    outer_id = NameField(_("outer group id"), max_length=ID_LENGTH, null=True)
    outer_index = models.IntegerField(_("number in the outer group"), null=True)
    # The first member that failed.
    failed_id = NameField(_("failed task id"), max_length=ID_LENGTH, null=True)
    failed_index = models.IntegerField(_("number of the failed member"), null=True)
    error = LongTextField(_("error"), blank=True, default="")
    # What GroupResult.save wrote.
    saved = LongTextField(_("saved"), null=True)
    root_id = NameField(_("root id"), max_length=ID_LENGTH, null=True)
    parent_id = NameField(_("parent id"), max_length=ID_LENGTH, null=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    ended_at = models.DateTimeField(_("ended at"), null=True)
    # When it fails if not all have ended, on the clock of the database; nothing once they have.
    deadline = models.DateTimeField(_("deadline"), null=True)

    class Meta:
        verbose_name = _("group of tasks")
        verbose_name_plural = _("groups of tasks")
        indexes = [
            models.Index(fields=["ended_at"], name="django_tasks_group_ended"),
            models.Index(fields=["deadline"], name="django_tasks_group_deadline"),
        ]

    def __str__(self) -> str:
        return self.group_id


class GroupPart(models.Model):
    """How one member of a group ended."""

    id = models.BigAutoField(_("number"), primary_key=True)
    group_id = NameField(_("group id"), max_length=ID_LENGTH)
    index = models.IntegerField(_("number in the group"))
    task_id = NameField(_("task id"), max_length=ID_LENGTH)
    # What it returned, encoded.
    value = LongTextField(_("value"), null=True)
    error = LongTextField(_("error"), blank=True, default="")

    class Meta:
        verbose_name = _("member of a group")
        verbose_name_plural = _("members of groups")
        constraints = [models.UniqueConstraint(fields=["group_id", "index"], name="django_tasks_part_place")]

    def __str__(self) -> str:
        return f"{self.group_id}/{self.index}"


class GroupMember(models.Model):
    """A member that was added to a group after that was sent."""

    id = models.BigAutoField(_("number"), primary_key=True)
    group_id = NameField(_("group id"), max_length=ID_LENGTH)
    # Made of the id of the task that added it, and of how many it had added before.
    name = NameField(_("name"), max_length=36)
    index = models.IntegerField(_("number in the group"))

    class Meta:
        verbose_name = _("added member of a group")
        verbose_name_plural = _("added members of groups")
        constraints = [models.UniqueConstraint(fields=["group_id", "name"], name="django_tasks_member_name")]

    def __str__(self) -> str:
        return f"{self.group_id}/{self.index}"


class WorkerNode(models.Model):
    """A worker process that runs, or ran; it says so itself, every few seconds."""

    class Status(models.TextChoices):
        STARTING = "starting", _("starting")
        RUNNING = "running", _("running")
        STOPPING = "stopping", _("stopping")
        OFFLINE = "offline", _("offline")

    id = models.BigAutoField(_("number"), primary_key=True)
    name = NameField(_("name"), max_length=255, unique=True)
    # Fresh at each start, so that a worker notices another of its name.
    session = NameField(_("session"), max_length=36)
    host = models.CharField(_("host"), max_length=255, blank=True, default="")
    pid = models.IntegerField(_("process id"), default=0)
    pool = models.CharField(_("pool"), max_length=255, blank=True, default="")
    concurrency = models.IntegerField(_("concurrency"), default=0)
    queues = LongTextField(_("queues"), blank=True, default="", help_text=_("Comma separated."))
    broker = NameField(_("broker"), max_length=ALIAS_LENGTH, default="default")
    version = models.CharField(_("version"), max_length=64, blank=True, default="")
    status = models.CharField(_("status"), max_length=16, choices=Status.choices, default=Status.STARTING)
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    heartbeat_at = models.DateTimeField(_("last heartbeat"), default=timezone.now)
    processed = models.BigIntegerField(_("processed"), default=0)
    failed = models.BigIntegerField(_("failed"), default=0)
    # A JSON list of {id, task, since, pid}.
    running = LongTextField(_("running"), default="[]")

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return self.name


class Crash(models.Model):
    """Evidence that a run took its process down, or that a message under suspicion of that was about to be run."""

    id = models.BigAutoField(_("number"), primary_key=True)
    task_id = NameField(_("task id"), max_length=ID_LENGTH)
    worker = NameField(_("worker"), max_length=255, blank=True, default="")
    attempt = models.IntegerField(_("attempt"), default=0)
    reason = LongTextField(_("reason"), blank=True, default="")
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        verbose_name = _("crash")
        verbose_name_plural = _("crashes")
        indexes = [models.Index(fields=["task_id"], name="django_tasks_crash_task")]

    def __str__(self) -> str:
        return f"{self.task_id} #{self.attempt}: {self.reason}"


class ServerMark(models.Model):
    """The last mark that was left on the server of a broker: one that knows of none so high has lost messages."""

    id = models.BigAutoField(_("number"), primary_key=True)
    broker = NameField(_("broker"), max_length=ALIAS_LENGTH)
    place = NameField(_("place"), max_length=255)
    number = models.BigIntegerField(_("number of the mark"), default=0)
    marked_at = models.DateTimeField(_("marked at"), default=timezone.now)
    # When the last loss was found, and since when messages were gone then; nothing where all were.
    lost_at = models.DateTimeField(_("lost at"), null=True)
    lost_since = models.DateTimeField(_("lost since"), null=True)

    class Meta:
        verbose_name = _("mark on a server")
        verbose_name_plural = _("marks on servers")
        constraints = [models.UniqueConstraint(fields=["broker", "place"], name="django_tasks_mark_place")]

    def __str__(self) -> str:
        return f"{self.place} #{self.number}"


class Revocation(models.Model):
    """A task that is not to be run, or a stamp of such tasks; kept, since the message may still be on its way."""

    # Or the name of a stamp: see `control.stamps`.
    task_id = NameField(_("task id"), max_length=ID_LENGTH, primary_key=True)
    # Whether a run that has begun is to be ended.
    terminate = models.BooleanField(_("terminate"), default=False)
    reason = LongTextField(_("reason"), blank=True, default="")
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        verbose_name = _("revocation")
        verbose_name_plural = _("revocations")

    def __str__(self) -> str:
        return self.task_id
