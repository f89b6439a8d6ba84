"""How does the admin show the shop?"""

from __future__ import annotations

from django.contrib import admin

from testproject.shop.models import Entry, Order, Product

admin.site.register([Entry, Order, Product])
