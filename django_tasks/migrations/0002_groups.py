"""Which tables record groups?"""

import django.utils.timezone
import django_tasks.schema
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('django_tasks', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='GroupPart',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False, verbose_name='number')),
                ('group_id', django_tasks.schema.NameField(max_length=255, verbose_name='group id')),
                ('index', models.IntegerField(verbose_name='number in the group')),
                ('task_id', django_tasks.schema.NameField(max_length=255, verbose_name='task id')),
                ('value', django_tasks.schema.LongTextField(null=True, verbose_name='value')),
                ('error', django_tasks.schema.LongTextField(blank=True, default='', verbose_name='error')),
            ],
            options={
                'verbose_name': 'member of a group',
                'verbose_name_plural': 'members of groups',
                'constraints': [models.UniqueConstraint(fields=('group_id', 'index'), name='django_tasks_part_place')],
            },
        ),
        migrations.CreateModel(
            name='TaskGroup',
            fields=[
                ('group_id', django_tasks.schema.NameField(max_length=255, primary_key=True, serialize=False, verbose_name='group id')),
                ('size', models.IntegerField(verbose_name='size')),
                ('done', models.IntegerField(default=0, verbose_name='done')),
                ('then', django_tasks.schema.LongTextField(blank=True, default='', verbose_name='what follows')),
                ('outer_id', django_tasks.schema.NameField(max_length=255, null=True, verbose_name='outer group id')),
                ('outer_index', models.IntegerField(null=True, verbose_name='number in the outer group')),
                ('failed_id', django_tasks.schema.NameField(max_length=255, null=True, verbose_name='failed task id')),
                ('failed_index', models.IntegerField(null=True, verbose_name='number of the failed member')),
                ('error', django_tasks.schema.LongTextField(blank=True, default='', verbose_name='error')),
                ('saved', django_tasks.schema.LongTextField(null=True, verbose_name='saved')),
                ('root_id', django_tasks.schema.NameField(max_length=255, null=True, verbose_name='root id')),
                ('parent_id', django_tasks.schema.NameField(max_length=255, null=True, verbose_name='parent id')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
                ('ended_at', models.DateTimeField(null=True, verbose_name='ended at')),
            ],
            options={
                'verbose_name': 'group',
                'verbose_name_plural': 'groups',
                'indexes': [models.Index(fields=['ended_at'], name='django_tasks_group_ended')],
            },
        ),
    ]
