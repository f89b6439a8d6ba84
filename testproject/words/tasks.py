"""How is the ranking made? One task a module, and one that follows them all and keeps what came of them."""

from __future__ import annotations

from collections import Counter

from django_tasks import task
from testproject.words import library
from testproject.words.models import Word

KEPT = 100
"""Places that the home page shows."""


@task(api=True)
def count_words(module: str) -> dict[str, int]:
    """Return how often each word stands in a module of the standard library."""
    return library.words(module)


@task(atomic=True)
def rank(counts: list[dict[str, int]]) -> int:
    """Replace the ranking by that of these modules; return how many words they have in all.

    Atomic: nobody sees an empty ranking, and a worker that dies leaves the old one.
    """
    times: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for words in counts:
        times.update(words)
        modules.update(words.keys())
    first = sorted(times.items(), key=lambda item: (-item[1], item[0]))[:KEPT]
    Word.objects.all().delete()
    Word.objects.bulk_create(Word(text=text, times=number, modules=modules[text]) for text, number in first)
    return times.total()
