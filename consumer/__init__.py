"""The process that makes it happen: workers, shutdown, command line."""

from consumer.consumer import Consumer

__all__ = ["Consumer"]
