"""Record what Celery's signals tell: import this from the module that makes the app, for producers and workers alike.

    from celery_trace import record
    record("trace.jsonl")

The names in the trace are Celery's; `celery.toml` says what they are called in the table.
"""

from celery import signals

from lifecycle.analysis.trace import TraceWriter


def record(path):
    """Write the signals of all tasks of this process, and of the pool's that it forks, to a file; the recorder."""
    recorder = TraceWriter(path)

    def connect(signal, identify):
        def handler(**heard):
            recorder.write(signal.name, *identify(heard))

        signal.connect(handler, weak=False)

    connect(signals.before_task_publish, lambda heard: (heard["headers"]["id"], heard["headers"]["task"]))
    for signal in (signals.task_prerun, signals.task_failure):
        connect(signal, lambda heard: (heard["task_id"], heard["sender"].name))
    for signal in (signals.task_retry, signals.task_revoked):
        connect(signal, lambda heard: (heard["request"].id, heard["sender"].name))
    connect(signals.task_success, lambda heard: (heard["sender"].request.id, heard["sender"].name))
    return recorder
