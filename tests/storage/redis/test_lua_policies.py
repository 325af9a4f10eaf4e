"""The scripts of the Redis adapter know the rules of `lifecycle.core.policies`, and no others."""

from itertools import product

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.redis_server import SERVER, connected, required
from support.strategies import patient

from lifecycle import LIFECYCLE, Kind
from lifecycle.core.policies import Revocation, admit, recover, visibility
from lifecycle.core.table import EXECUTING
from lifecycle.core.task import Task
from lifecycle.storage.redis import scripts as redis_script

WAITING = [state.name for state in LIFECYCLE.of_kind(Kind.WAITING)]

ASK = """
local told, now, own, of_function, max_interruptions = unpack(cmsgpack.unpack(ARGV[1]), 1, 5)
local row = {state = told[1], eta = told[2], expires = told[3] or nil, priority = told[4], interruptions = told[5]}
row.canceling = told[6]
local rank, due = visibility(row, own, now)
local function text(number) return number and string.format("%.17g", number) or false end
return {
  text(rank), text(due), admit(row, own, of_function, now) or false, table.concat(recovery(row, max_interruptions), " "),
}
"""


@pytest.fixture(scope="module")
def asked():
    """Asks the scripts' own functions."""
    required()
    policies = redis_script.filled((redis_script._FOLDER / "policies.lua").read_text())
    with connected(SERVER) as db:
        answer = db.register_script(policies + ASK)

        def ask(*arguments):
            rank, due, trigger, path = answer(args=[msgspec.msgpack.encode(arguments)])
            return (
                None if rank is None else float(rank),
                None if due is None else float(due),
                None if trigger is None else trigger.decode(),
                tuple(path.decode().split()),
            )

        yield ask


moments = st.sampled_from([0.0, 1.0, 2.5, 3.0, 9e99, float("inf")]) | st.floats(0, 1e11)
revocations = st.none() | st.builds(Revocation, st.none() | moments, st.booleans())


def rules_agree(asked, state, eta, expires, now, own, of_function, *, priority=0, gone=(0, 0), canceling=False):
    """Hold the scripts' rules against Python's; `gone`: how often its workers were, and how often they may be."""
    interruptions, most = gone
    task = Task("a", "add", state=state, eta=eta, expires=expires, priority=priority, interruptions=interruptions)
    rank, due = visibility(task, own, now)
    trigger = admit(task, own, of_function, now)
    task.state, task.canceling = EXECUTING.name, canceling
    path = recover(task, now, worker="w", max_interruptions=most).path
    said = [None if one is None else (one.until, one.once) for one in (own, of_function)]
    row = (state, False if eta is None else eta, expires, priority, interruptions, canceling)
    assert asked(row, now, *said, most) == (rank, due, trigger, path)


def test_the_same_rules_around_a_moment(asked):
    """What a claim does to a task, and when it looks at it, is as in Python: for each order in which moments can come."""
    around = (None, 1.0, 2.0, 3.0)
    said = (None, *(Revocation(until, once=True) for until in around))
    for state, eta, expires, own, of_function in product(WAITING, around, around, said, said):
        rules_agree(asked, state, eta, expires, 2.0, own, of_function)


def test_the_same_rules_for_the_gone(asked):
    """What becomes of a task whose worker is gone is as in Python, whatever became of it before, and may become."""
    for interruptions, most, canceling in product(range(4), range(4), (False, True)):
        rules_agree(asked, WAITING[0], None, None, 2.0, None, None, gone=(interruptions, most), canceling=canceling)


@patient
@given(
    st.sampled_from(WAITING), st.none() | moments, st.none() | moments, moments, revocations, revocations,
    st.integers(-(2**31), 2**31 - 1),
)  # fmt: skip
@example(WAITING[0], 3.0, None, 1.0, Revocation(2.5), None, 0)
def test_the_same_rules(asked, state, eta, expires, now, own, of_function, priority):
    """They are the same for any numbers."""
    rules_agree(asked, state, eta, expires, now, own, of_function, priority=priority)


def test_no_state_is_typed():
    """The scripts name no state and no trigger: what they know of the table is filled in from it."""
    words = {state.name for state in LIFECYCLE.states} | set(LIFECYCLE.triggers)
    for path in redis_script._FOLDER.glob("*.lua"):
        code = "\n".join(line.partition("--")[0] for line in path.read_text().splitlines())
        typed = {word for word in words if f'"{word}"' in code or f"'{word}'" in code or f">{word}" in code}
        assert not typed, f"{path.name} types {typed}"


def test_every_script_is_there():
    """Each file but the parts is a script, and each is short enough for one command."""
    names = {path.stem for path in redis_script._FOLDER.glob("*.lua")} - {"head", "policies", "base", "rows", "moves"}
    assert len(names) > 10
    for name in names:
        assert "$" not in redis_script.script(name).text.replace("dollar", "")
