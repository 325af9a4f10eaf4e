"""The process that runs tasks: workers, supervision, command line."""

from lifecycle.consumer.consumer import Consumer

__all__ = ["Consumer"]
