"""The queue for consumers: Django is set up before the module of the tasks is imported."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django.setup()

from orders.tasks import queue
