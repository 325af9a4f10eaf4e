"""Values that no store takes: refused at the call, or an error of their task, and never a reason to wait."""

import logging

import pytest
from conftest import Heard, failure
from support.consumers import begin_stop, join, logged, running
from support.processes import settled, states

from lifecycle import ConfigurationError, StorageRefused, TaskQueue
from lifecycle.execution.worker import Worker

LIMIT = 1000
"""Bytes that the queues of these tests accept."""


def refusing(queue, monkeypatch, longest):
    """Let the queue's store refuse results of more bytes; return the sizes of the refused results."""
    exchange, refused = queue.storage.exchange, []

    def limited(done, request):
        sizes = [len(move.result or b"") for _, move in done]
        if max(sizes, default=0) > longest:
            refused.append(sizes)
            raise StorageRefused("too large for this store")
        return exchange(done, request)

    monkeypatch.setattr(queue.storage, "exchange", limited)
    return refused


@pytest.mark.parametrize("smaller", [0, 1])
def test_arguments_above_the_limit_are_refused_at_the_call(make, smaller):
    """Arguments of `max_bytes` are accepted; with one byte more the call raises, and nothing is stored or announced."""
    size = len(make().engine.serializer.dumps((("x" * LIMIT,), {})))
    queue = make(max_bytes=size - smaller)
    heard, send = Heard(queue), queue.task(name="send")(lambda text: None)
    if not smaller:
        assert send("x" * LIMIT).state == "queued"
        return
    for call in (lambda: send("x" * LIMIT), lambda: queue.enqueue_many([send.s("y"), send.s("x" * LIMIT)])):
        with pytest.raises(StorageRefused, match=f"the arguments of send: {size:,} bytes .* accepts {size - 1:,}"):
            call()
    assert not any(queue.counts().values())
    assert not heard


@pytest.mark.parametrize("max_bytes", [0, -1, 1.5, "1", True])
def test_limit_must_be_a_number_of_bytes(max_bytes):
    """`max_bytes` must be a whole number of at least 1."""
    with pytest.raises(ConfigurationError, match="max_bytes"):
        TaskQueue("memory://", max_bytes=max_bytes)


@pytest.mark.parametrize("kind_of_function", ["plain", "async"])
@pytest.mark.parametrize(
    ("value", "words"),
    [("x" * LIMIT, "StorageRefused.*the result of make"), (object(), "Unserializable.*the result of make")],
)
def test_result_that_cannot_be_stored_is_an_error_without_a_retry(make, value, words, kind_of_function, ran):
    """A task whose result cannot be stored ends in `error` at once: its function is not run again for the same result."""
    queue = make(max_bytes=LIMIT)
    if kind_of_function == "plain":

        @queue.task(name="make", retries=2)
        def plain():
            ran.append(1)
            return value
    else:

        @queue.task(name="make", retries=2)
        async def plain():
            ran.append(1)
            return value

    result = plain()
    queue.run_next()
    assert queue.run_next() is None
    assert (states(result), ran) == ("queued executing error", [1])
    metadata = failure(result)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(metadata["error"])
    assert "Traceback" in metadata["traceback"]


def test_error_of_the_function_itself_is_retried(make, ran):
    """A function that raises `StorageRefused` or `Unserializable`, from a call of its own, has its retries."""
    queue = make(max_bytes=LIMIT)
    send = queue.task(name="send")(lambda text: None)

    @queue.task(retries=1)
    def outer():
        ran.append(1)
        send("x" * LIMIT)

    result = outer()
    while queue.run_next():
        pass
    assert (states(result), ran) == ("queued executing error retrying queued executing error", [1, 1])


def test_outcome_that_the_store_refuses_is_an_error(make, monkeypatch, caplog):
    """A task whose outcome the store refuses ends in `error`, is not retried, and the log says so."""
    queue = make()
    heard = Heard(queue)
    result = queue.task(name="make", retries=2)(lambda: "x" * 9000)()
    refusing(queue, monkeypatch, 8000)
    queue.run_next()
    assert heard.story(result) == "enqueued executing error"
    assert "too large for this store" in failure(result)["error"]
    assert logged(caplog, logging.ERROR, "error=lifecycle.errors.StorageRefused")


def test_other_outcomes_of_a_refused_batch_are_stored(make, monkeypatch):
    """If the store refuses the outcomes of a batch, all that it takes one by one are stored as they are."""
    queue = make()
    queue.engine.monotonic = lambda: 0.0  # on a busy machine, too, the function is quick
    make_text = queue.task()(lambda size: "x" * size)
    for _ in range(200):  # until the function counts as quick, and its tasks are run in batches
        make_text(1)
    worker = Worker(queue.engine, "w")
    worker.work(lambda: True)
    refused = refusing(queue, monkeypatch, 8000)
    sizes = [1, 9000, 2, 9000, 3]
    results = queue.enqueue_many([make_text.s(size) for size in sizes])
    worker.work(lambda: True)
    assert [result.state for result in results] == ["error" if size == 9000 else "complete" for size in sizes]
    assert len(max(refused, key=len)) > 1, "there was no batch"


def test_store_that_refuses_everything_is_an_outage(make, monkeypatch):
    """If the store refuses the error, too, the worker waits as in an outage, and stores the error later."""
    queue = make()
    result = queue.task(name="make")(lambda: "x" * 9000)()
    refused, waits = refusing(queue, monkeypatch, 0), []

    def wait(error):
        waits.append(error)
        monkeypatch.undo()
        return True

    worker = Worker(queue.engine, "w", wait)
    worker.work(lambda: True)
    assert (states(result), len(refused), len(waits)) == ("queued executing error", 2, 1)


@pytest.mark.parametrize("worker_type", ["thread", "asyncio"])
def test_consumer_goes_on_after_a_refusal_and_stops_at_once(live, monkeypatch, caplog, worker_type):
    """A worker goes on after a refused outcome, which counts as no outage, and a graceful stop ends the consumer."""
    queue = live()
    make_text = queue.task(name="make")(lambda size: "x" * size)
    refusing(queue, monkeypatch, 8000)
    with running(queue, 1, worker_type=worker_type) as consumer:
        assert settled(queue, make_text(9000), make_text(1)) == ["error", "complete"]
        join(begin_stop(consumer))
    assert not logged(caplog, logging.ERROR, "the store cannot be used")
