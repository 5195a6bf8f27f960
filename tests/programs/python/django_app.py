"""The Django test server in one file: `gunicorn django_app:application`.

/plain  /big/<n>  /keep/<n>  /status/<code>  /counts; its own counts come from
request_counts. Deliberately not here: anything that knows memtrace.
"""

import logging

from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DEBUG=False,
    LOGGING_CONFIG=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for tests",
)

import django
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path

import endpoints
import request_counts

django.setup()
logging.disable(logging.WARNING)  # a line for each 404


def plain(_request):
    return HttpResponse("plain\n")


def big(_request, size_bytes):
    return HttpResponse(f"{endpoints.big(size_bytes)}\n")


def keep(_request, size_bytes):
    return HttpResponse(f"{endpoints.keep(size_bytes)}\n")


def status(_request, code):
    return HttpResponse(f"{code}\n", status=code)


def counts(_request):
    return JsonResponse(request_counts.total())


urlpatterns = [
    path("plain", plain),
    path("big/<int:size_bytes>", big),
    path("keep/<int:size_bytes>", keep),
    path("status/<int:code>", status),
    path("counts", counts),
]

application = request_counts.CountingWsgi(get_wsgi_application())
