"""Tasks that a worker cannot run: their arguments cannot be read."""

import sqlite3

import pytest
from conftest import KINDS, Heard, drain, failure, states
from hypothesis import example, given
from hypothesis import strategies as st
from support.damaged_rows import overwrite
from support.strategies import patient

from lifecycle import LifecycleError, MsgpackSerializer, PickleSerializer, TaskQueue
from lifecycle.testing import VirtualClock

pytestmark = pytest.mark.usefixtures("still_works")


def corrupt(queue, task_id, payload):
    """Overwrite the stored arguments of a task."""
    if hasattr(queue.storage, "_rows"):
        queue.storage._rows[task_id].task.payload = payload
    elif hasattr(queue.storage, "_server"):
        overwrite(queue.storage, task_id, "payload", payload)
    else:
        with sqlite3.connect(queue.storage._database.path) as db:
            db.execute("update task set payload=? where id=?", (payload, task_id))
        db.close()


def valid(payload):
    """Return whether the payload holds arguments of a call after all."""
    try:
        call = MsgpackSerializer().loads(payload)
    except LifecycleError:
        return False
    match call:
        case (tuple() | list(), dict() as named):
            return all(isinstance(name, str) for name in named)
    return False


@patient
@given(st.sampled_from(KINDS), st.binary(max_size=30))
@example("memory", b"\x05")
@example("memory", MsgpackSerializer().dumps((1, 2, 3)))
@example("memory", MsgpackSerializer().dumps(("ab", {})))
@example("memory", MsgpackSerializer().dumps(((), {5: 6})))
@example("sqlite", MsgpackSerializer().dumps(((), [])))
def test_task_with_damaged_arguments_ends_error(new, kind, payload):
    """A task whose stored arguments cannot be read ends `error` with `Undecodable`, and other tasks still run."""
    if valid(payload):
        return
    with new(kind) as queue:
        heard, ran = Heard(queue), []
        note = queue.task(name="note")(lambda *args, **kwargs: ran.append(args))
        damaged, good = note(1), note(2)
        corrupt(queue, damaged.id, payload)
        drain(queue)
        assert heard.story(damaged) == "enqueued executing error"
        assert failure(damaged)["error"].startswith("Undecodable")
        assert ran == [(2,)]
        assert good.state == "complete"
        with pytest.raises(LifecycleError):
            queue.get(damaged.id).args


def test_task_of_another_serializer_ends_error(tmp_path):
    """Arguments of another serializer, or of another secret, end `error`, and run on a queue that can read them."""
    url = f"sqlite:///{tmp_path}/app.db"
    serializers = [
        MsgpackSerializer(), PickleSerializer("a secret of sixteen bytes"), PickleSerializer("another one, as long as that"),
    ]  # fmt: skip
    queues = [TaskQueue(url, serializer=serializer, clock=VirtualClock()) for serializer in serializers]
    adds = [queue.task(name="add")(lambda a, b: a + b) for queue in queues]
    for writer, add in zip(queues, adds, strict=True):
        for reader in queues:
            if reader is writer:
                continue
            result = add(1, 2)
            reader.run_next()
            assert states(result) == "queued executing error"
            assert "Undecodable" in failure(result)["error"]
            with pytest.raises(LifecycleError):
                reader.get(result.id).args
            writer.retry(result.id)
            writer.run_next()
            assert result.get() == 3
            with pytest.raises(LifecycleError):
                reader.result(result.id)
            assert reader.handle(result.id).state == "complete"
    for queue in queues:
        queue.close()


def test_handler_that_reads_damaged_arguments_is_logged(queue, heard, caplog):
    """A handler that reads damaged arguments is logged as any other handler that raises."""
    note = queue.task(name="note")(lambda a: a)
    queue.signal("error")(lambda signal, task, exc: task.args)
    result = note(1)
    corrupt(queue, result.id, b"\xc1")
    drain(queue)
    assert heard.story(result) == "enqueued executing error"
    assert "Undecodable" in caplog.text
