from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from orders.models import Order
from orders.tasks import write_receipt


@csrf_exempt  # the client of this example is no browser
@require_POST
@transaction.atomic
def order(request):
    placed = Order.objects.create(item=request.POST["item"])
    transaction.on_commit(lambda: write_receipt(placed.pk))
    if placed.item == "nothing":
        raise ValueError("the transaction is rolled back, and no task is enqueued")
    return JsonResponse({"number": placed.pk}, status=201)


@require_GET
def show(request, number):
    found = get_object_or_404(Order, pk=number)
    return JsonResponse({"item": found.item, "receipt": found.receipt})
