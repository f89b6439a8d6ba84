"""Sends tasks until it is killed, and says of each that it was sent: `python -m tests.acceptance.producer LEDGER`."""

from __future__ import annotations

import itertools
import sys

import django
from django.db import transaction

django.setup()

from tests.acceptance import tasks  # noqa: E402  # needs the apps


def main(book: str) -> None:
    for number in itertools.count():
        if number % 2:
            handle = tasks.note.delay(book)
        else:
            with transaction.atomic():
                handle = tasks.note.apply_async((book,), enqueue="transaction")
        print(handle.id, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
