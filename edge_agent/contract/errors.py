"""The errors Forewarn raises, each a sentence that names the thing, the field and the rule it broke.

They stand in a file of their own so that every layer can raise and translate them without importing another.
"""


class ForewarnError(Exception):
    """Something failed that the user can understand; the text is one line for a person."""

    exit_code = 1


class HistoryError(ForewarnError):
    """A history file cannot be used as it is."""


class ExportError(ForewarnError):
    """A trained model could not be proven equal to its exported graphs."""


class ExporterMissingError(ExportError):
    """What graphs are exported through is not installed; what was learnt can be exported elsewhere."""


class UsageError(ForewarnError):
    """The command line asks for something that is not offered."""

    exit_code = 2


class ConfigurationError(ForewarnError):
    """A configuration cannot be used; the program does not start."""

    exit_code = 78


class BundleError(ConfigurationError):
    """A bundle is incomplete, damaged, of another version, or not reproducing its golden samples."""


class BrokerError(ForewarnError):
    """The MQTT broker refused or was never reached."""
