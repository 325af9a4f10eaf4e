"""The process that runs tasks: the consumer, its workers, and the command line."""
