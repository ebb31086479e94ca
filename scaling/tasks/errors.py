"""What is wrong with a study's data or model."""


class DataError(ValueError):
    """The data cannot be used as the study file says; `path` is the dotted path at fault."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path

    def within(self, section: str) -> "DataError":
        """The same of a field that a section of the study file sets."""
        return DataError(f"{section}.{self.path}", str(self).removeprefix(f"{self.path}: "))
