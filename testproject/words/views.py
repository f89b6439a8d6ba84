"""What does the home page show?"""

from __future__ import annotations

from django.apps import apps
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from testproject.words.models import Word


def ranking(request: HttpRequest) -> HttpResponse:
    context = {"words": Word.objects.all()[:100], "api": apps.is_installed("rest_framework")}
    return render(request, "words/ranking.html", context)
