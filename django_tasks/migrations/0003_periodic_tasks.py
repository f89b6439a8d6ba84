"""Which tables keep periodic tasks, and what became of them?"""

import django.db.models.deletion
import django.utils.timezone
import django_tasks.schema
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('django_tasks', '0002_groups'),
    ]

    operations = [
        migrations.CreateModel(
            name='BeatNode',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False, verbose_name='number')),
                ('name', django_tasks.schema.NameField(max_length=255, unique=True, verbose_name='name')),
                ('host', models.CharField(blank=True, default='', max_length=255, verbose_name='host')),
                ('pid', models.IntegerField(default=0, verbose_name='process id')),
                ('version', models.CharField(blank=True, default='', max_length=64, verbose_name='version')),
                ('started_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='started at')),
                ('ticked_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='last tick')),
                ('published', models.BigIntegerField(default=0, verbose_name='published')),
            ],
            options={
                'verbose_name': 'beat',
                'verbose_name_plural': 'beats',
            },
        ),
        migrations.CreateModel(
            name='PeriodicTask',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False, verbose_name='number')),
                ('name', django_tasks.schema.NameField(max_length=255, unique=True, verbose_name='name')),
                ('task', django_tasks.schema.NameField(max_length=255, verbose_name='task')),
                ('schedule', django_tasks.schema.LongTextField(verbose_name='schedule')),
                ('timezone', models.CharField(blank=True, default='', max_length=64, verbose_name='time zone')),
                ('args', django_tasks.schema.LongTextField(blank=True, default='[]', verbose_name='arguments')),
                ('kwargs', django_tasks.schema.LongTextField(blank=True, default='{}', verbose_name='keyword arguments')),
                ('queue', django_tasks.schema.NameField(blank=True, default='', max_length=128, verbose_name='queue')),
                ('priority', models.SmallIntegerField(blank=True, null=True, verbose_name='priority')),
                ('headers', django_tasks.schema.LongTextField(blank=True, default='{}', verbose_name='headers')),
                ('expires', models.FloatField(blank=True, null=True, verbose_name='expires')),
                ('one_off', models.BooleanField(default=False, verbose_name='run once only')),
                ('enabled', models.BooleanField(default=True, verbose_name='enabled')),
                ('start_at', models.DateTimeField(blank=True, null=True, verbose_name='not before')),
                ('end_at', models.DateTimeField(blank=True, null=True, verbose_name='not after')),
                ('missed', models.CharField(choices=[('skip', 'leave it out'), ('once', 'run once, however many were missed'), ('all', 'run for each, the last ones first to be kept')], default='once', max_length=8, verbose_name='missed runs')),
                ('missed_limit', models.PositiveIntegerField(default=10, verbose_name='missed runs at most')),
                ('overlap', models.CharField(choices=[('allow', 'run both'), ('skip', 'leave the new run out'), ('cancel', 'cancel the run before'), ('wait', 'let one run wait')], default='allow', max_length=8, verbose_name='overlapping runs')),
                ('jitter', models.FloatField(default=0.0, verbose_name='jitter')),
                ('pause_after', models.PositiveIntegerField(blank=True, null=True, verbose_name='pause after failures')),
                ('description', django_tasks.schema.LongTextField(blank=True, default='', verbose_name='description')),
                ('from_code', models.BooleanField(default=False, editable=False, verbose_name='declared in code')),
                ('planned', models.BooleanField(default=False, editable=False, verbose_name='planned')),
                ('slot_at', models.DateTimeField(editable=False, null=True, verbose_name='next slot')),
                ('next_run_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, null=True, verbose_name='next run')),
                ('waiting_at', models.DateTimeField(editable=False, null=True, verbose_name='waiting slot')),
                ('last_run_at', models.DateTimeField(editable=False, null=True, verbose_name='last run')),
                ('last_task_id', django_tasks.schema.NameField(blank=True, default='', editable=False, max_length=255, verbose_name='last task id')),
                ('total_run_count', models.BigIntegerField(default=0, editable=False, verbose_name='runs')),
                ('failures', models.PositiveIntegerField(default=0, editable=False, verbose_name='failures in a row')),
                ('error', django_tasks.schema.LongTextField(blank=True, default='', editable=False, verbose_name='error')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='created at')),
                ('changed_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='changed at')),
            ],
            options={
                'verbose_name': 'periodic task',
                'verbose_name_plural': 'periodic tasks',
                'permissions': [('run_periodictask', 'Can run periodic tasks now')],
                'indexes': [django_tasks.schema.PartIndex(fields=['next_run_at'], flag='enabled', name='django_tasks_periodic_due', value=True)],
            },
        ),
        migrations.CreateModel(
            name='ScheduledRun',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False, verbose_name='number')),
                ('slot_at', models.DateTimeField(verbose_name='scheduled for')),
                ('published_at', models.DateTimeField(null=True, verbose_name='sent at')),
                ('lateness', models.FloatField(null=True, verbose_name='lateness')),
                ('task_id', django_tasks.schema.NameField(blank=True, default='', max_length=255, verbose_name='task id')),
                ('outcome', models.CharField(choices=[('sent', 'sent'), ('succeeded', 'succeeded'), ('failed', 'failed'), ('revoked', 'revoked'), ('skipped', 'left out'), ('missed', 'missed')], default='sent', max_length=16, verbose_name='outcome')),
                ('ended_at', models.DateTimeField(null=True, verbose_name='ended at')),
                ('note', django_tasks.schema.LongTextField(blank=True, default='', verbose_name='note')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, verbose_name='created at')),
                ('periodic_task', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='runs', to='django_tasks.periodictask', verbose_name='periodic task')),
            ],
            options={
                'verbose_name': 'scheduled run',
                'verbose_name_plural': 'scheduled runs',
                'indexes': [models.Index(fields=['task_id'], name='django_tasks_run_task'), models.Index(fields=['created_at'], name='django_tasks_run_created')],
                'constraints': [models.UniqueConstraint(fields=('periodic_task', 'slot_at'), name='django_tasks_run_slot')],
            },
        ),
    ]
