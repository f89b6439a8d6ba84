"""What comes of each feature? Calls every task of the shop and prints its results, while a worker runs."""

from __future__ import annotations

import tempfile
import time
from argparse import ArgumentParser
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from django_tasks import AsyncResult, bulk
from testproject.shop import tasks
from testproject.shop.models import Entry, Order, Product
from testproject.shop.tasks import OutOfStock


class Command(BaseCommand):
    help = "Calls every task of the shop; a worker must be running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--timeout", type=float, default=30.0, help="seconds to wait for each task (default: %(default)g)"
        )

    def handle(self, *args: Any, timeout: float, **options: Any) -> None:
        """Call one after the other, as a customer would."""
        self.timeout = timeout
        rows = [("Tea", Decimal("4.50"), 10), ("Pot", Decimal("19.90"), 1)]
        self.told("import_products", tasks.import_products.delay(rows))
        tea, pot = Product.objects.get(name="Tea"), Product.objects.get(name="Pot")
        self.told("quote", tasks.quote.delay(tea.pk, quantity=3))
        order = self.told("place_order", tasks.place_order.delay(tea.pk, 3))
        self.told("place_order of too many", tasks.place_order.delay(pot.pk, 2))
        Order.objects.filter(pk=order).update(refusals=2)
        charged = tasks.charge.delay(order)
        self.told("charge", charged)
        self.told("retries of charge", charged.retries)
        self.supply(tea)
        shipped = tasks.ship.delay(order)
        self.told("ship", shipped)
        events = Entry.objects.filter(task_id=shipped.id).order_by("pk").values_list("event", flat=True)
        self.told("journal of ship", ", ".join(events))
        self.told("track", tasks.track.delay([order]))
        self.told("stock_report", tasks.stock_report.delay(60.0))
        tasks.email_receipt.delay(order, "ann@example.com")
        self.told("email_newsletter", tasks.email_newsletter.delay(["ann@example.com", "bob@example.com"]))
        quotes = bulk(tasks.quote.s(product.pk) for product in (tea, pot))
        self.told("bulk of quote", ", ".join(str(quote.get(timeout=timeout)) for quote in quotes))

    def supply(self, product: Product) -> None:
        """Ask for prices before their file is there: the task is run again until it is."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "prices")
            reading = tasks.read_prices.delay(str(path))
            while reading.retries == 0 and not reading.ready():
                time.sleep(0.05)
            path.with_suffix(".new").write_text(f"{product.name} 5.00\n")
            path.with_suffix(".new").rename(path)
            self.told("read_prices", reading)

    def told(self, what: str, answer: Any) -> Any:
        """Print what came of a call, and return it."""
        if isinstance(answer, AsyncResult):
            try:
                answer = answer.get(timeout=self.timeout)
            except OutOfStock as error:
                answer = f"OutOfStock: {error}"
        self.stdout.write(f"{what}: {answer}")
        return answer
