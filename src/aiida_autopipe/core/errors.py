"""Exceptions of the package: one clear sentence each, with the wrong value and what to do."""


class AutopipeError(Exception):
    """Base of all errors raised on purpose; the command prints them without a traceback."""


class InputError(AutopipeError):
    """A value the user gave cannot be used."""


class DataError(AutopipeError):
    """A data file or array is unusable (NaN, wrong shape, empty, inconsistent labels)."""


class FitError(AutopipeError):
    """A potential cannot be fitted to the given data with the given settings."""


class PotentialFileError(AutopipeError):
    """A potential file cannot be read, or asks for something this package does not know."""


class EngineError(AutopipeError):
    """A foreign program is missing, or its input or output cannot be used."""
