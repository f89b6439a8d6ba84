"""Which words are used most?"""

from __future__ import annotations

from django.db import models


class Word(models.Model):
    """One place in the ranking."""

    text = models.CharField(max_length=100, unique=True)
    times = models.PositiveBigIntegerField()
    modules = models.PositiveIntegerField(help_text="In how many modules the word stands.")

    class Meta:
        ordering = ("-times", "text")

    def __str__(self) -> str:
        return self.text
