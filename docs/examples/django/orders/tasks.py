from django.conf import settings
from django.db import close_old_connections, connections
from lifecycle import TaskQueue

from orders.models import Order

queue = TaskQueue(settings.BASE_DIR / "queue.db")


@queue.task(retries=3, retry_delay=10)
def write_receipt(number):
    order = Order.objects.get(pk=number)
    order.receipt = f"1 {order.item}"
    order.save(update_fields=["receipt"])


@queue.pre_execute
def fresh_connections(task):
    close_old_connections()


@queue.on_shutdown
def no_connections():
    connections.close_all()
