"""Hooks and handlers by function and by name: none replaces another one, unless its module was reloaded."""

import functools
from textwrap import dedent
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.callables import HOOKS, of_text
from support.strategies import patient

from lifecycle import (
    SIGNAL_COMPLETE,
    CancelExecution,
    ConfigurationError,
    TaskQueue,
)


def test_hooks_of_one_name_do_not_replace_one_another(queue, ran, add, module):
    """Hooks of one name in two modules, or made by one function, are all called; a name names one of them only."""
    for name in ("billing", "shipping"):
        module(name, "from given import queue, ran\n@queue.pre_execute\ndef check(task): ran.append(__name__)",
               queue=queue, ran=ran)  # fmt: skip

    def declare(text):
        @queue.pre_execute()
        def local(task):
            ran.append(text)

        return local

    one, two = declare("one"), declare("two")
    add(1)
    queue.run_next()
    assert ran == ["billing", "shipping", "one", "two"]
    for name in ("check", "local"):
        with pytest.raises(ConfigurationError, match=rf"{name}.* and .*{name}.*give the function"):
            queue.unregister_pre_execute(name)
    assert queue.unregister_pre_execute("shipping.check") is True
    assert queue.unregister_pre_execute("check") is True
    assert queue.unregister_pre_execute(one) is True
    assert queue.unregister_pre_execute("local") is True
    assert queue.unregister_pre_execute(two) is False
    assert queue.engine.hooks.pre_execute == ()


@pytest.mark.parametrize("hook_kind", HOOKS)
def test_second_hook_of_a_given_name_is_refused(queue, hook_kind):
    """A name that is given to two hooks is refused, and is free again once the first hook is unregistered."""
    first, second = of_text(HOOKS[hook_kind]), of_text(HOOKS[hook_kind])
    register, unregister = getattr(queue, hook_kind), getattr(queue, f"unregister_{hook_kind}")
    register("check")(first)
    with pytest.raises(ConfigurationError, match=f"'check'.*unregister_{hook_kind}"):
        register("check")(second)
    assert register("check")(first) is first
    assert [hook.call for hook in getattr(queue.engine.hooks, hook_kind)] == [first]
    assert unregister("check") is True
    assert register("check")(second) is second


@pytest.mark.parametrize("wrong", [5, None, ["check"]])
def test_object_that_is_no_handler_or_hook_cannot_be_removed(queue, wrong):
    """An object that is neither a function nor a hook's name is refused where a handler or a hook is removed."""
    for remove in (queue.disconnect_signal, *(getattr(queue, f"unregister_{kind}") for kind in HOOKS)):
        with pytest.raises(ConfigurationError, match="must be"):
            remove(wrong)
    with pytest.raises(ConfigurationError, match="must be"):
        queue.disconnect_signal(SIGNAL_COMPLETE)


@pytest.mark.parametrize("hook_kind", HOOKS)
def test_empty_name_of_a_hook_is_refused(queue, hook_kind):
    """An empty text is no name of a hook."""
    with pytest.raises(ConfigurationError, match="name='': must not be empty"):
        getattr(queue, hook_kind)("")


def test_exact_name_of_a_hook_is_not_the_end_of_another(queue):
    """The name of one hook names that hook, also if another hook's name ends so."""
    short, long = of_text("task"), of_text("task")
    queue.pre_execute("check")(short), queue.pre_execute("billing.check")(long)
    assert queue.unregister_pre_execute("check") is True
    assert [hook.call for hook in queue.engine.hooks.pre_execute] == [long]
    assert queue.unregister_pre_execute("heck") is False


def test_bound_method_is_one_hook_and_one_handler(queue, ran, add):
    """A bound method that is registered twice is called once, and can be unregistered."""

    class Watch:
        def see(self, *args):
            ran.append(args)

    watch = Watch()
    for _ in range(2):
        queue.pre_execute()(watch.see)
        queue.signal(SIGNAL_COMPLETE)(watch.see)
    add(1)
    queue.run_next()
    assert [len(args) for args in ran] == [1, 2]
    assert queue.unregister_pre_execute(watch.see) is True
    queue.disconnect_signal(watch.see)
    assert queue.engine.signals.connected == {}


def test_reloaded_handlers_and_hooks_replace_the_earlier_ones(queue, ran, add, module):
    """After a reload of their module, handlers and hooks are called once, in their old places."""
    text = """
        from given import queue, ran
        queue.signal("complete")(lambda signal, task: ran.append((VERSION, 1)))
        queue.signal("complete")(lambda signal, task: ran.append((VERSION, 2)))
        @queue.signal("executing")
        @queue.signal("complete")
        def both(signal, task): ran.append((VERSION, signal))
        queue.pre_execute(lambda task: ran.append((VERSION, 3)))
        queue.pre_execute(lambda task: ran.append((VERSION, 4)))
        @queue.post_execute("after")
        def after(task, value, exc): ran.append((VERSION, 5))
    """
    for version in (1, 2):
        module("watching", f"VERSION = {version}{dedent(text)}", queue=queue, ran=ran)
        if version == 1:
            queue.signal(SIGNAL_COMPLETE)(lambda signal, task: ran.append("last"))
        ran.clear()
        add(1)
        queue.run_next()
        assert ran == [
            (version, "executing"), (version, 3), (version, 4), (version, 5), (version, 1), (version, 2),
            (version, "complete"), "last",
        ]  # fmt: skip


def test_mocks_are_handlers_and_hooks(queue, add):
    """A mock is accepted as a handler and a hook: it takes any arguments."""
    handler, hook = Mock(), Mock(side_effect=CancelExecution)
    queue.signal(handler)
    queue.pre_execute(hook)
    add(1)
    assert queue.run_next().state == "canceled"
    assert (handler.call_count, hook.call_count) == (3, 1)


def named_hook(module, name):
    """Return a hook with this module and this qualified name."""
    hook = of_text("task")
    hook.__module__, hook.__qualname__ = module, name
    return hook


POOL = [
    named_hook(*names) for names in [("billing", "check"), ("shipping", "check"), ("billing", "check"), ("a", "b.c")]
]
hook_names = st.sampled_from(["check", "billing.check", "c", "b.c", "other", "x.check"])
hook_steps = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(POOL), st.none() | hook_names),
    st.tuples(st.just("unregister"), st.sampled_from(POOL) | hook_names, st.none()),
)


@patient
@given(st.lists(hook_steps, max_size=12))
def test_hooks_are_a_list_of_functions_with_names(steps):
    """After any steps the hooks are those registered, in order, each once; a refused step changes nothing."""
    queue, model = TaskQueue("memory://"), {}  # model: hook → its name, in order
    for step, hook, name in steps:
        refused = False
        if step == "register":
            refused = any(known == name for other, known in model.items() if other is not hook)
            if not refused:
                model[hook] = name or f"{hook.__module__}.{hook.__qualname__}"
            call = functools.partial(queue.pre_execute(name), hook)
        else:
            found = [other for other, known in model.items() if hook in (other, known)] or [
                other for other, known in model.items() if isinstance(hook, str) and known.endswith(f".{hook}")
            ]
            refused = len(found) > 1
            if len(found) == 1:
                del model[found[0]]
            call = functools.partial(queue.unregister_pre_execute, hook)
        if refused:
            with pytest.raises(ConfigurationError):
                call()
        else:
            assert call() is (hook if step == "register" else bool(found))
        assert [(known.call, known.name) for known in queue.engine.hooks.pre_execute] == [*model.items()]
