"""Context variables: an attempt has a context of its own, and so have handlers; nothing leaks out of either."""

import asyncio
from contextvars import ContextVar

import pytest
from conftest import drain

from lifecycle.execution.attempt import current_task
from lifecycle.testing import perform

user: ContextVar[str] = ContextVar("user", default="nobody")


class Visits(list):
    """What hooks, functions and handlers find in the variable; each then sets the variable to its own name."""

    def __init__(self, queue):
        super().__init__()
        queue.pre_execute("before")(lambda task: self.visit("before"))
        queue.post_execute("after")(lambda task, value, exc: self.visit("after"))
        queue.signal()(lambda signal, task, exc=None: self.visit(signal))

        @queue.task(name="plain")
        def plain(fails=False):
            self.visit("body")
            if fails:
                raise ValueError

        @queue.task(name="async")
        async def awaits(fails=False):
            self.visit("body")
            await asyncio.sleep(0)
            assert user.get() == "body"
            if fails:
                raise ValueError

        self.functions = {"plain": plain, "async": awaits}

    def visit(self, name):
        self.append((name, user.get()))
        user.set(name)

    def taken(self):
        taken = self[:]
        self.clear()
        return taken


@pytest.fixture
def visits(queue):
    return Visits(queue)


def visited(first, end):
    """Return the visits of a task of a caller with the variable at `first`."""
    attempt = [("before", first), ("body", "before"), ("after", "body")]
    return [("enqueued", first), ("executing", first), *attempt, (end, first)]


@pytest.mark.parametrize("function", ["plain", "async"])
@pytest.mark.parametrize("fails", [False, True])
def test_hooks_and_function_of_an_attempt_share_a_context(visits, queue, function, fails):
    """Hooks and function of an attempt share a copy of the caller's context; handlers have copies; nothing leaks."""
    end = "error" if fails else "complete"
    for _ in range(2):
        visits.functions[function](fails)
        drain(queue)
        assert visits.taken() == visited("nobody", end)
        assert user.get() == "nobody"
    token = user.set("caller")
    try:
        visits.functions[function](fails)
        queue.run_next()
        assert visits.taken() == visited("caller", end)
        assert user.get() == "caller"
    finally:
        user.reset(token)


@pytest.mark.parametrize("function", ["plain", "async"])
def test_immediate_mode_leaks_nothing_to_the_caller(make, function):
    """In immediate mode, and in a task that enqueues there, the caller's context stays as it is."""
    queue = make(immediate=True)
    visits = Visits(queue)

    @queue.task()
    def outer():
        user.set("outer")
        visits.functions[function]()
        assert (user.get(), current_task.get().name) == ("outer", outer.name)

    visits.functions[function]()
    assert visits.taken() == visited("nobody", "complete")
    result = outer()
    assert result.get() is None
    assert user.get() == "nobody"
    assert current_task.get() is None
    assert [visit for visit in visits if visit[0] == "body"] == [("body", "before")]


@pytest.mark.parametrize("function", ["plain", "async"])
def test_caller_within_an_event_loop_sees_the_same(visits, queue, function):
    """A caller within an event loop runs tasks in a copy of its context, too."""

    async def program():
        user.set("caller")
        visits.functions[function]()
        queue.run_next()
        assert user.get() == "caller"

    asyncio.run(program())
    assert visits.taken() == visited("caller", "complete")


@pytest.mark.parametrize("function", ["plain", "async"])
def test_performed_task_leaks_nothing(visits, function):
    """`perform` runs hooks and function in a copy of the caller's context."""
    perform(visits.functions[function])
    assert visits.taken() == [("before", "nobody"), ("body", "before"), ("after", "body")]
    assert user.get() == "nobody"


def test_hooks_after_an_attempt_are_not_in_the_task(queue, add):
    """A post-execute hook runs when the attempt is over: a lock that the hook takes is not the task's."""
    lock, tasks = queue.lock_task("hook"), []
    queue.pre_execute("before")(lambda task: tasks.append(current_task.get().id))

    @queue.post_execute()
    def after(task, value, exc):
        tasks.append(current_task.get())
        lock.acquire()

    result = add(1)
    queue.run_next()
    assert tasks == [result.id, None]
    assert lock.is_locked()
    assert queue.engine.held_locks == {}
    lock.release()
