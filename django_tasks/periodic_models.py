"""Which rows say what runs periodically, and what became of it?"""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import DEFAULT_DB_ALIAS, models
from django.utils.timezone import now
from django.utils.translation import gettext_lazy as _

from django_tasks.message import ID_LENGTH, NAME_LENGTH, QUEUE_LENGTH
from django_tasks.querysets import PLANNING, PeriodicTaskQuerySet, anew, held
from django_tasks.schema import LongTextField, NameField, PartIndex


class PeriodicTask(models.Model):
    """A task that is sent whenever its schedule says so.

    `slot_at` is the moment of the schedule that comes next, `next_run_at` when it is to be sent: the same, or later by
    the jitter. A row that is not `planned` was changed, and the next tick works both out.
    """

    class Missed(models.TextChoices):
        SKIP = "skip", _("leave it out")
        ONCE = "once", _("run once, however many were missed")
        ALL = "all", _("run for each, the last ones first to be kept")

    class Overlap(models.TextChoices):
        ALLOW = "allow", _("run both")
        SKIP = "skip", _("leave the new run out")
        CANCEL = "cancel", _("cancel the run before")
        WAIT = "wait", _("let one run wait")

    id = models.BigAutoField(_("number"), primary_key=True)
    name = NameField(_("name"), max_length=NAME_LENGTH, unique=True)
    task = NameField(_("task"), max_length=NAME_LENGTH)
    schedule = LongTextField(_("schedule"))
    timezone = models.CharField(_("time zone"), max_length=64, blank=True, default="")
    args = LongTextField(_("arguments"), blank=True, default="[]")
    kwargs = LongTextField(_("keyword arguments"), blank=True, default="{}")
    queue = NameField(_("queue"), max_length=QUEUE_LENGTH, blank=True, default="")
    priority = models.SmallIntegerField(_("priority"), null=True, blank=True)
    headers = LongTextField(_("headers"), blank=True, default="{}")
    expires = models.FloatField(_("expires"), null=True, blank=True)
    one_off = models.BooleanField(_("run once only"), default=False)
    enabled = models.BooleanField(_("enabled"), default=True)
    start_at = models.DateTimeField(_("not before"), null=True, blank=True)
    end_at = models.DateTimeField(_("not after"), null=True, blank=True)
    missed = models.CharField(_("missed runs"), max_length=8, choices=Missed.choices, default=Missed.ONCE)
    missed_limit = models.PositiveIntegerField(_("missed runs at most"), default=10)
    overlap = models.CharField(_("overlapping runs"), max_length=8, choices=Overlap.choices, default=Overlap.ALLOW)
    jitter = models.FloatField(_("jitter"), default=0.0)
    pause_after = models.PositiveIntegerField(_("pause after failures"), null=True, blank=True)
    description = LongTextField(_("description"), blank=True, default="")
    # Whether the code declares it, which then says all of it but whether it is enabled.
    from_code = models.BooleanField(_("declared in code"), default=False, editable=False)
    planned = models.BooleanField(_("planned"), default=False, editable=False)
    slot_at = models.DateTimeField(_("next slot"), null=True, editable=False)
    # Due at once, however the row came to be, for a tick to plan it.
    next_run_at = models.DateTimeField(_("next run"), null=True, default=now, editable=False)
    # The slot that waits for the run before it to end.
    waiting_at = models.DateTimeField(_("waiting slot"), null=True, editable=False)
    last_run_at = models.DateTimeField(_("last run"), null=True, editable=False)
    last_task_id = NameField(_("last task id"), max_length=ID_LENGTH, blank=True, default="", editable=False)
    total_run_count = models.BigIntegerField(_("runs"), default=0, editable=False)
    failures = models.PositiveIntegerField(_("failures in a row"), default=0, editable=False)
    # Why it was disabled by itself.
    error = LongTextField(_("error"), blank=True, default="", editable=False)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    changed_at = models.DateTimeField(_("changed at"), default=now, editable=False)

    objects = PeriodicTaskQuerySet.as_manager()
    # For beats, whose changes are the plan itself.
    as_they_are: ClassVar[models.Manager[PeriodicTask]] = models.Manager()

    class Meta:
        verbose_name = _("periodic task")
        verbose_name_plural = _("periodic tasks")
        permissions = [("run_periodictask", "Can run periodic tasks now")]
        indexes = [PartIndex(flag="enabled", value=True, fields=["next_run_at"], name="django_tasks_periodic_due")]

    def __str__(self) -> str:
        return self.name

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._terms = self._deciding()
        """What decided when it is due, as it was read."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the row; what a beat has written since it was read stays, and a change of schedule counts at the next
        tick."""
        changed = self._state.adding or self._terms != self._deciding()
        named = kwargs.get("update_fields")
        if changed and (named is None or PLANNING & set(named)):
            for name, value in anew().items():
                setattr(self, name, value)
            named = None if named is None else {*named, *anew()}
        if named is None and not self._state.adding and not kwargs.get("force_insert"):
            # A beat may have disabled it meanwhile.
            kept = frozenset() if changed else PLANNING | frozenset(anew())
            named = [field.name for field in self._meta.concrete_fields if field.name not in KEPT_BY_BEAT | kept]
        super().save(*args, **{**kwargs, "update_fields": named})
        self._terms = self._deciding()

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Remove the row and its runs; a tick that is at it comes to its end before."""
        with held(type(self).as_they_are.using(using or self._state.db or DEFAULT_DB_ALIAS).filter(pk=self.pk)):
            return super().delete(using=using, keep_parents=keep_parents)

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        """Read the row again."""
        super().refresh_from_db(*args, **kwargs)
        self._terms = self._deciding()

    def _deciding(self) -> tuple[Any, ...]:
        return tuple(self.__dict__.get(name) for name in sorted(PLANNING))


KEPT_BY_BEAT = frozenset({"id", "slot_at", "waiting_at", "last_run_at", "last_task_id", "total_run_count"})
"""Fields of a periodic task that nobody but a beat writes."""


class ScheduledRun(models.Model):
    """What became of one slot of a periodic task: there is one row for each, so none is run twice."""

    class Outcome(models.TextChoices):
        SENT = "sent", _("sent")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        REVOKED = "revoked", _("revoked")
        SKIPPED = "skipped", _("left out")
        MISSED = "missed", _("missed")

    id = models.BigAutoField(_("number"), primary_key=True)
    periodic_task = models.ForeignKey(
        PeriodicTask, models.CASCADE, related_name="runs", verbose_name=_("periodic task"), db_index=False
    )
    # When it was due, by the schedule.
    slot_at = models.DateTimeField(_("scheduled for"))
    published_at = models.DateTimeField(_("sent at"), null=True)
    # Seconds between the two, without the jitter.
    lateness = models.FloatField(_("lateness"), null=True)
    task_id = NameField(_("task id"), max_length=ID_LENGTH, blank=True, default="")
    outcome = models.CharField(_("outcome"), max_length=16, choices=Outcome.choices, default=Outcome.SENT)
    ended_at = models.DateTimeField(_("ended at"), null=True)
    note = LongTextField(_("note"), blank=True, default="")
    created_at = models.DateTimeField(_("created at"), default=now)

    class Meta:
        verbose_name = _("scheduled run")
        verbose_name_plural = _("scheduled runs")
        constraints = [models.UniqueConstraint(fields=["periodic_task", "slot_at"], name="django_tasks_run_slot")]
        indexes = [
            models.Index(fields=["task_id"], name="django_tasks_run_task"),
            models.Index(fields=["created_at"], name="django_tasks_run_created"),
        ]

    def __str__(self) -> str:
        return f"{self.periodic_task}@{self.slot_at.isoformat()}"


class BeatNode(models.Model):
    """A beat that runs, or ran; it says so itself, every few seconds."""

    id = models.BigAutoField(_("number"), primary_key=True)
    name = NameField(_("name"), max_length=255, unique=True)
    host = models.CharField(_("host"), max_length=255, blank=True, default="")
    pid = models.IntegerField(_("process id"), default=0)
    version = models.CharField(_("version"), max_length=64, blank=True, default="")
    started_at = models.DateTimeField(_("started at"), default=now)
    ticked_at = models.DateTimeField(_("last tick"), default=now)
    # Of this beat, since it was started.
    published = models.BigIntegerField(_("published"), default=0)

    class Meta:
        verbose_name = _("beat")
        verbose_name_plural = _("beats")

    def __str__(self) -> str:
        return self.name
