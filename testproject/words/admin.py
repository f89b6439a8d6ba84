"""How does the admin show the ranking?"""

from __future__ import annotations

from django.contrib import admin

from testproject.words.models import Word


@admin.register(Word)
class WordAdmin(admin.ModelAdmin):
    list_display = ("text", "times", "modules")
    search_fields = ("text",)
