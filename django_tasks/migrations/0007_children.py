"""Which column tells what a task sent?"""

from django.db import migrations

import django_tasks.schema


class Migration(migrations.Migration):
    dependencies = [
        ("django_tasks", "0006_server_mark"),
    ]

    operations = [
        migrations.AddField(
            model_name="taskresult",
            name="children",
            field=django_tasks.schema.LongTextField(null=True, verbose_name="children"),
        ),
    ]
