"""Which table tells of what a server has lost?"""

import django.utils.timezone
import django_tasks.schema
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('django_tasks', '0005_group_timeout'),
    ]

    operations = [
        migrations.CreateModel(
            name='ServerMark',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False, verbose_name='number')),
                ('broker', django_tasks.schema.NameField(max_length=64, verbose_name='broker')),
                ('place', django_tasks.schema.NameField(max_length=255, verbose_name='place')),
                ('number', models.BigIntegerField(default=0, verbose_name='number of the mark')),
                ('marked_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='marked at')),
                ('lost_at', models.DateTimeField(null=True, verbose_name='lost at')),
                ('lost_since', models.DateTimeField(null=True, verbose_name='lost since')),
            ],
            options={
                'verbose_name': 'mark on a server',
                'verbose_name_plural': 'marks on servers',
                'constraints': [models.UniqueConstraint(fields=('broker', 'place'), name='django_tasks_mark_place')],
            },
        ),
    ]
