"""What do people call the table of groups? Not as Django calls groups of users."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("django_tasks", "0003_periodic_tasks"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="taskgroup",
            options={"verbose_name": "group of tasks", "verbose_name_plural": "groups of tasks"},
        ),
    ]
