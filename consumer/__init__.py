"""The process that makes it happen: workers, shutdown, command line."""

from lifecycle.consumer.consumer import Consumer

__all__ = ["Consumer"]
