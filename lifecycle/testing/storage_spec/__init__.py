"""The specification of a storage adapter, as a Hypothesis state machine. It needs ``hypothesis``."""
