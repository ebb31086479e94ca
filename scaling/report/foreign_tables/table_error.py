"""What is said of a table that cannot be used."""

from scaling.report.page.printable import printable


class TableError(ValueError):
    """The table or what was asked of it is wrong, in one line for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message).replace("\n", "\\n"))
