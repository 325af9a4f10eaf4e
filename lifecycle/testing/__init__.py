"""What tests of a queue, and of programs that use one, are made with."""

from lifecycle.testing.clock import VirtualClock

__all__ = ["VirtualClock"]
