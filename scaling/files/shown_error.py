"""Errors as messages show them."""

# pyright: strict


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its name where there is none."""
    return (str(error).strip() or repr(error)).splitlines()[0]
