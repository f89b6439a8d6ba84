"""What does a shop keep?"""

from __future__ import annotations

from django.db import models


class Product(models.Model):
    """Something to be bought; `stock` is what is left of it."""

    name = models.CharField(max_length=100, unique=True)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """What somebody wants; the card is refused as often as `refusals` says before it is taken."""

    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="orders")
    quantity = models.PositiveIntegerField(default=1)
    refusals = models.PositiveIntegerField(default=0)
    paid_at = models.DateTimeField(null=True, blank=True)
    shipped_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product_id}"


class Entry(models.Model):
    """A line in the shop's journal: what a task did, and how it ended."""

    task_id = models.CharField(max_length=255, db_index=True)
    event = models.CharField(max_length=50)
    text = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return f"{self.event} {self.task_id}"
