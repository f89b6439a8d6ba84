"""How is the ranking made? One task a module, and one that keeps what came of them."""

from __future__ import annotations

from django_tasks import task
from testproject.words import library
from testproject.words.models import Word


@task(api=True)
def count_words(module: str) -> dict[str, int]:
    """Return how often each word stands in a module of the standard library."""
    return library.words(module)


@task(atomic=True)
def keep_ranking(places: list[tuple[str, int, int]]) -> int:
    """Replace the ranking by words, each with its count and the number of its modules.

    Atomic: nobody sees an empty ranking, and a worker that dies leaves the old one.
    """
    Word.objects.all().delete()
    return len(
        Word.objects.bulk_create(Word(text=text, times=times, modules=modules) for text, times, modules in places)
    )
