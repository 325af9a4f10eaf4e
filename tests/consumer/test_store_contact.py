"""When a consumer may recover lapsed leases: after it was in touch with the store for half a lease."""

from hypothesis import given
from hypothesis import strategies as st

from lifecycle.consumer.contact import StoreContact

LEASE = 8.0
JUMPS = st.sampled_from([0.0, 0.0, 0.0, 4.0, 100.0, -100.0])


@given(st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 4.0, 4.5, 9.0]), JUMPS), max_size=30))
def test_recovery_waits_half_a_lease_after_a_silence(steps):
    """Recovery is allowed unless, in the last half of a lease, there was a silence of more than half a lease.

    A silence is a difference of either clock between two answers of the store.
    """
    contact, wall, ticks = StoreContact(LEASE), 1000.0, 0.0
    assert contact.answered((wall, ticks))
    silence_ended = None
    for seconds, jump in steps:
        wall, ticks = wall + seconds + jump, ticks + seconds
        if seconds > LEASE / 2 or abs(seconds + jump) > LEASE / 2:
            silence_ended = ticks
        allowed = silence_ended is None or ticks - silence_ended >= LEASE / 2
        assert contact.answered((wall, ticks)) == allowed
