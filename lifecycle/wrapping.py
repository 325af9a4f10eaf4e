"""Objects that stand for one of this library: a queue or a function of `lifecycle.huey`."""

__all__ = ["unwrapped"]


def unwrapped(value: object) -> object:
    """Return the object of this library behind a value, which its class tells by ``__lifecycle__``; else the value.

    Only the class is asked: an attribute of any object, such as a proxy, may do anything.
    """
    return value.__lifecycle__ if hasattr(type(value), "__lifecycle__") else value  # type: ignore[attr-defined]
