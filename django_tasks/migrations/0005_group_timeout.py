"""When does a group fail that still waits for members?"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('django_tasks', '0004_group_names'),
    ]

    operations = [
        migrations.AddField(
            model_name='taskgroup',
            name='deadline',
            field=models.DateTimeField(null=True, verbose_name='deadline'),
        ),
        migrations.AddIndex(
            model_name='taskgroup',
            index=models.Index(fields=['deadline'], name='django_tasks_group_deadline'),
        ),
    ]
