"""Everything the library raises on purpose.

    PromptGenError
    ├── ConfigError           a parameter is unknown, ill-typed, or contradicts another one
    ├── ModelFileError        a weight file is missing, damaged, or not what its card says
    │   └── ChecksumError     its sha256 differs from the pinned one
    ├── CheckpointError       one of our own checkpoints cannot be read
    ├── DataError             arrays or images of a wrong shape, range or number
    │   └── TooFewSamplesError
    ├── InfeasibleTargetError no tilt of these samples reaches the wanted moments
    ├── NonFiniteEnergyError  an energy or its gradient became NaN or infinite during training
    └── StorageError          no space, no permission, or another run holds the folder

A message is one line: what was got, what was expected, how to mend it.
"""

from __future__ import annotations


class PromptGenError(Exception):
    """Base of all errors of this project; a command line prints its message and exits with status 2."""


class ConfigError(PromptGenError):
    """A parameter is unknown, ill-typed, or contradicts another one."""


class ModelFileError(PromptGenError):
    """A weight file is missing, damaged, or not what its card says."""


class ChecksumError(ModelFileError):
    """The sha256 of a file differs from the pinned one."""


class CheckpointError(PromptGenError):
    """A checkpoint of this project cannot be read."""


class DataError(PromptGenError):
    """Arrays or images have a wrong shape, range or number."""


class TooFewSamplesError(DataError):
    """A statistic was asked for from fewer samples than it needs."""


class InfeasibleTargetError(PromptGenError):
    """No tilt of the given samples reaches the wanted moments."""


class NonFiniteEnergyError(PromptGenError):
    """An energy, or its gradient, became NaN or infinite during training."""


class StorageError(PromptGenError):
    """A file or folder cannot be written: no space, no permission, or held by another run."""
