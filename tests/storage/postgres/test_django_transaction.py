"""Tasks within a transaction of Django: its connection is one of psycopg, and is passed to the queue."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
from support.postgres import temporary_database

pytestmark = pytest.mark.skipif(find_spec("django") is None, reason="django is not installed")

PROGRAM = """
import sys

import django
import psycopg
from django.conf import settings

parts = psycopg.conninfo.conninfo_to_dict(sys.argv[1])
database = {name.upper(): parts[name] for name in ("host", "port", "user", "password") if name in parts}
database |= {"ENGINE": "django.db.backends.postgresql", "NAME": parts["dbname"]}
settings.configure(DATABASES={"default": database}, USE_TZ=True)
django.setup()

from django.db import connection, transaction

from lifecycle import TaskQueue

queue = TaskQueue(sys.argv[1])


@queue.task()
def add(a, b):
    return a + b


def enqueue(fails):
    with transaction.atomic():
        connection.ensure_connection()
        queue.enqueue(add.s(1, 2), connection=connection.connection)
        print("within", queue.counts()["queued"])
        if fails:
            raise ValueError


enqueue(fails=False)
print("committed", queue.counts()["queued"])
try:
    enqueue(fails=True)
except ValueError:
    print("rolled back", queue.counts()["queued"])
"""


def test_task_is_enqueued_if_the_transaction_of_django_commits():
    """A task that is enqueued with Django's connection exists once `atomic` commits, and not if it is rolled back."""
    with temporary_database() as url:
        done = subprocess.run([sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("within 0\ncommitted 1\nwithin 1\nrolled back 1\n", "")
