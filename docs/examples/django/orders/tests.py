from django.test import TestCase

from lifecycle.testing import assert_enqueued, drain, testing_mode

from orders.models import Order
from orders.tasks import queue, write_receipt


class Orders(TestCase):
    def test_an_order_gets_a_receipt(self):
        with testing_mode(queue):
            with self.captureOnCommitCallbacks(execute=True):
                number = self.client.post("/orders", {"item": "teapot"}).json()["number"]
            assert_enqueued(write_receipt, number)
            drain(queue)
        self.assertEqual(Order.objects.get(pk=number).receipt, "1 teapot")
