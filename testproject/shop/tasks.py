"""What does a shop leave to its workers? Each task shows one feature."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.core.mail import send_mail
from django.db.models import F
from django.utils import timezone

from django_tasks import SoftTimeLimitExceeded, Task, current_request, task
from testproject.shop.models import Entry, Order, Product


class CardRefused(Exception):
    """The bank says no, for now."""


class OutOfStock(Exception):
    """There is less than was asked for."""


class Journaled(Task[..., Any]):
    """A base class: its handlers write a journal, its attributes are options of every task that has it."""

    max_retries = 2
    default_retry_delay = 0.1
    track_started = True

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        Entry.objects.create(task_id=task_id, event="started", text=self.name)

    def on_success(self, retval: Any, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        Entry.objects.create(task_id=task_id, event="succeeded", text=repr(retval))

    def on_failure(
        self, exc: BaseException, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], einfo: str
    ) -> None:
        Entry.objects.create(task_id=task_id, event="failed", text=str(exc))

    def on_retry(
        self, exc: BaseException, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], einfo: str
    ) -> None:
        Entry.objects.create(task_id=task_id, event="retried", text=str(exc))

    def after_return(
        self, status: str, retval: Any, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], einfo: str
    ) -> None:
        Entry.objects.create(task_id=task_id, event="ended", text=status)


@task(api=True)
def quote(product_id: int, quantity: int = 1) -> Decimal:
    """Return a price: may be started through the REST API, and returns what JSON alone cannot say."""
    return Product.objects.get(pk=product_id).price * quantity


@task(atomic=True)
def place_order(product_id: int, quantity: int) -> int:
    """Take from the stock and write the order, and say so, in one transaction: all of it happens once or not at all."""
    taken = Product.objects.filter(pk=product_id, stock__gte=quantity).update(stock=F("stock") - quantity)
    if not taken:
        raise OutOfStock(f"There are fewer than {quantity} of product {product_id}.")
    return Order.objects.create(product_id=product_id, quantity=quantity).pk


@task(bind=True, max_retries=5)
def charge(self: Task[..., Any], order_id: int) -> datetime:
    """Take the money: a bound task that says itself when it is to be run again."""
    order = Order.objects.get(pk=order_id)
    if order.refusals:
        Order.objects.filter(pk=order_id).update(refusals=F("refusals") - 1)
        refused = CardRefused(f"The card of order {order_id} was refused.")
        self.retry(exc=refused, countdown=0.1 * 2**self.request.retries)
    paid_at = timezone.now()
    Order.objects.filter(pk=order_id, paid_at=None).update(paid_at=paid_at)
    return paid_at


@task(autoretry_for=[FileNotFoundError], max_retries=8, retry_backoff=0.1, retry_backoff_max=2.0)
def read_prices(path: str) -> int:
    """Read the supplier's prices, one `name price` a line: run again, with growing pauses, until the file is there."""
    changed = 0
    for line in Path(path).read_text().splitlines():
        name, price = line.rsplit(maxsplit=1)
        changed += Product.objects.filter(name=name).update(price=Decimal(price))
    return changed


@task(bind=True)
def import_products(self: Task[..., Any], rows: Sequence[tuple[str, Decimal, int]], pause: float = 0.0) -> int:
    """Take in products, and tell how far it is: whoever waits reads `result.info` while the state is PROGRESS."""
    for number, (name, price, stock) in enumerate(rows, start=1):
        Product.objects.update_or_create(name=name, defaults={"price": price, "stock": stock})
        self.update_state(state="PROGRESS", meta={"current": number, "total": len(rows), "message": name})
        time.sleep(pause)
    return len(rows)


@task(base=Journaled, throws=[OutOfStock], autoretry_for=[CardRefused])
def ship(order_id: int) -> int:
    """Send an order off: its base class keeps the journal; that nothing is left is no news for the log."""
    order = Order.objects.select_related("product").get(pk=order_id)
    if order.product.stock < order.quantity:
        raise OutOfStock(f"Order {order_id} waits for {order.product}.")
    if order.paid_at is None:
        raise CardRefused(f"Order {order_id} is not paid.")
    Order.objects.filter(pk=order_id, shipped_at=None).update(shipped_at=timezone.now())
    return order_id


@task
async def track(order_ids: Sequence[int]) -> dict[str, str]:
    """Ask where orders are, all at once: a coroutine function is a task like any other."""
    return dict(await asyncio.gather(*map(_where, order_ids)))


async def _where(order_id: int) -> tuple[str, str]:
    order = await Order.objects.aget(pk=order_id)
    return str(order_id), "on its way" if order.shipped_at else "in the warehouse"


@task(soft_time_limit=1.0, time_limit=5.0)
def stock_report(seconds: float) -> str:
    """Count the stock for so long; told to stop, it says what it has, and would be ended if it did not listen."""
    until = time.monotonic() + seconds
    counted = 0
    try:
        while time.monotonic() < until:
            counted += Product.objects.count()
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        return f"unfinished, {counted} counted"
    return f"finished, {counted} counted"


@task(ignore_result=True, expires=timedelta(hours=1).total_seconds(), priority=10)
def email_receipt(order_id: int, address: str) -> None:
    """Send a mail: by a route on the queue `mail`; nobody asks what came of it, and an hour later it is too late."""
    order = Order.objects.select_related("product").get(pk=order_id)
    send_mail("Your receipt", f"{order.quantity} x {order.product}", None, [address])


@task(acks_late=False, on_crash="fail")
def email_newsletter(addresses: Sequence[str]) -> str | None:
    """Send many mails: run at most once, since two newsletters are worse than none."""
    send_mail("News", "There is news.", None, addresses)
    request = current_request()
    return request.id if request else None
