from django.urls import path

from orders import views

urlpatterns = [path("orders", views.order), path("orders/<int:number>", views.show)]
