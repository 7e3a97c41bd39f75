"""The errors that the library raises on purpose.

    PromptGenError
    ├── ConfigError             a parameter is unknown, has a wrong type, or contradicts another one
    ├── ModelFileError          a weight file is missing, damaged, or not the one its card describes
    │   ├── ChecksumError       its sha256 differs from the pinned one
    │   └── UnreachableError    a server or an index of packages does not answer
    ├── CheckpointError         a checkpoint of this project cannot be read
    ├── DataError               arrays or images have a wrong shape, range or number
    │   └── TooFewSamplesError  a statistic needs more samples
    ├── InfeasibleTargetError   no tilt of the samples reaches the target moments
    ├── EngineError             workers cannot be started, are refused, or end again and again
    ├── NonFiniteEnergyError    an energy or its gradient became NaN or infinite during training
    └── StorageError            no space, no permission, or another run holds the folder

A message is one line: what was got, what was expected, how to fix it.
"""

from __future__ import annotations


class PromptGenError(Exception):
    """Base of all errors of this project. The command line prints the message and exits with status 2."""


class ConfigError(PromptGenError):
    """A parameter is unknown, has a wrong type, or contradicts another one."""


class ModelFileError(PromptGenError):
    """A weight file is missing, damaged, or not the one its card describes."""


class ChecksumError(ModelFileError):
    """The sha256 of a file differs from the pinned one."""


class UnreachableError(ModelFileError):
    """A server, or an index of packages, does not answer."""


class CheckpointError(PromptGenError):
    """A checkpoint of this project cannot be read."""


class DataError(PromptGenError):
    """Arrays or images have a wrong shape, range or number."""


class TooFewSamplesError(DataError):
    """A statistic needs more samples than it got."""


class InfeasibleTargetError(PromptGenError):
    """No tilt of the samples reaches the target moments."""


class NonFiniteEnergyError(PromptGenError):
    """An energy, or its gradient, became NaN or infinite during training."""


class EngineError(PromptGenError):
    """Workers of an engine cannot be started, are refused, or end again and again."""


class StorageError(PromptGenError):
    """A file or folder cannot be written: no space, no permission, or another run holds it."""


def one_line(error: BaseException) -> str:
    """Return the message of any error in one line of at most 300 characters; its type if it has no message."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of the message of any error, at most 300 characters; its type if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
