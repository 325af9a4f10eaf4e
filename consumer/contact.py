"""Whether a consumer may recover tasks of other consumers: only after it was in touch with the store for some time."""

from collections.abc import Sequence

__all__ = ["StoreContact"]


class StoreContact:
    """Notes when the store has answered, and when recovery may go on after an outage.

    While nobody can use the store, all leases lapse, those of living workers too. Each consumer prolongs its own leases
    as soon as the store is back. Recovery waits so long.
    """

    def __init__(self, lease_seconds: float) -> None:
        """`lease_seconds`: half of it is the longest silence, and the wait after a longer one."""
        self._limit_seconds = lease_seconds / 2
        self._answered_at: Sequence[float] = ()
        self._since = float("-inf")

    def answered(self, clocks: Sequence[float]) -> bool:
        """Note that the store has answered; return whether lapsed leases may be recovered.

        `clocks`: seconds of each clock that may show a silence (the host may sleep, a clock may be set); the last one
        is monotonic.
        """
        monotonic = clocks[-1]
        pairs = zip(clocks, self._answered_at, strict=False)
        if any(abs(now - before) > self._limit_seconds for now, before in pairs):
            self._since = monotonic
        self._answered_at = clocks
        return monotonic - self._since >= self._limit_seconds
