"""Record Celery's signals: import this from the module that makes the app, for producers and workers alike.

    from celery_trace import record
    record("trace.jsonl")

The names in the trace are Celery's; `celery.toml` translates them to the table's.
"""

from celery import signals

from lifecycle.analysis.trace import TraceWriter


def record(path):
    """Write the signals of all tasks of this process, and of the pool that it forks, to a file. Return the writer."""
    writer = TraceWriter(path)

    def connect(signal, identify):
        def handler(**arguments):
            writer.write(signal.name, *identify(arguments))

        signal.connect(handler, weak=False)

    connect(signals.before_task_publish, lambda sent: (sent["headers"]["id"], sent["headers"]["task"]))
    for signal in (signals.task_prerun, signals.task_failure):
        connect(signal, lambda sent: (sent["task_id"], sent["sender"].name))
    for signal in (signals.task_retry, signals.task_revoked):
        connect(signal, lambda sent: (sent["request"].id, sent["sender"].name))
    connect(signals.task_success, lambda sent: (sent["sender"].request.id, sent["sender"].name))
    return writer
