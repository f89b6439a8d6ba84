"""Which table tells what members a group has gained?"""

from django.db import migrations, models

import django_tasks.schema


class Migration(migrations.Migration):
    dependencies = [
        ("django_tasks", "0007_children"),
    ]

    operations = [
        migrations.CreateModel(
            name="GroupMember",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False, verbose_name="number")),
                ("group_id", django_tasks.schema.NameField(max_length=255, verbose_name="group id")),
                ("name", django_tasks.schema.NameField(max_length=36, verbose_name="name")),
                ("index", models.IntegerField(verbose_name="number in the group")),
            ],
            options={
                "verbose_name": "added member of a group",
                "verbose_name_plural": "added members of groups",
                "constraints": [
                    models.UniqueConstraint(fields=("group_id", "name"), name="django_tasks_member_name")
                ],
            },
        ),
    ]
