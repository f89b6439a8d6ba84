"""Does a test leave nothing behind in the database?"""

from __future__ import annotations

from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command

from django_tasks.models import QueuedMessage, TaskResult
from tests.app.models import Note
from tests.vendors import each_vendor


@each_vendor(transaction=True)
def test_flushing_removes_every_row_but_what_migrations_write(alias):
    lasting = {model: model.objects.using(alias).count() for model in (ContentType, Permission)}
    Note.objects.using(alias).create(text="left behind")
    QueuedMessage.objects.using(alias).create(task_id="left", queue="default", task="left", body=b"")
    TaskResult.objects.using(alias).create(task_id="left", task="left")
    # Rows that others refer to.
    group = Group.objects.using(alias).create(name="left")
    group.permissions.add(*Permission.objects.using(alias)[:2])
    User.objects.using(alias).create(username="left").groups.add(group)
    call_command("flush", database=alias, interactive=False, verbosity=0)
    emptied = (Note, QueuedMessage, TaskResult, Group, User, Group.permissions.through, User.groups.through)
    assert [model.__name__ for model in emptied if model._base_manager.using(alias).exists()] == []
    assert all(lasting.values())
    assert {model: model.objects.using(alias).count() for model in lasting} == lasting
