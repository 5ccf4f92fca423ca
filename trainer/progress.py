"""How long work tells of its progress."""


class Progress:
    """Told how fitting goes; this one keeps quiet."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` steps."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Note that steps of the stage are done."""

    def note(self, text: str) -> None:
        """Note what the user should know."""
