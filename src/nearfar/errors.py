"""Every error nearfar raises on purpose, in one tree.

::

    NearfarError
    ├── PluginError            a plugin is not active and NEARFAR_STRICT asks that all are
    ├── RegistrationError      a part cannot be registered under that name
    ├── UnknownPart            no part has that name                       (LookupError)
    │   └── AmbiguousPart      several parts have that bare name
    ├── ArgumentError          an argument a part does not take, lacks, or cannot use (TypeError)
    ├── RecipeError            a recipe cannot be read, or does not fit together      (ValueError)
    ├── InputError             a tensor of the wrong shape, dtype or range            (ValueError)
    ├── ConfigError            a run's configuration is wrong                         (ValueError)
    ├── DataError              a data set cannot be read                              (ValueError)
    ├── CheckpointError        a file of weights or of a run cannot be used           (ValueError)
    ├── Diverged               the loss became infinite or not a number          (ArithmeticError)
    ├── RankFailed             a process of a run ended before the run did
    └── MissingExtra           an optional dependency is not installed                (ImportError)

    NearfarWarning             (UserWarning)
    ├── DeprecatedName         a part answers to a former name                  (FutureWarning)
    └── CollapseWarning        the embeddings are collapsing to a point

The command line prints the message of a :class:`NearfarError` and exits with code 2; it never shows
a traceback for one.
"""

from __future__ import annotations

from collections.abc import Sequence


class NearfarError(Exception):
    """The root of every error nearfar raises on purpose."""


class PluginError(NearfarError):
    """A plugin is blocked, failed, incompatible or in conflict, and strict mode forbids that."""


class RegistrationError(NearfarError):
    """A part cannot be registered under the name it was given."""


class UnknownPart(NearfarError, LookupError):
    """No part of the kind asked for answers to the name."""

    def __init__(self, message: str, *, name: str, suggestions: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.suggestions = tuple(suggestions)


class AmbiguousPart(UnknownPart):
    """Several parts answer to a bare name; ``suggestions`` holds their full names."""


class ArgumentError(NearfarError, TypeError):
    """An argument that a part does not take, that it lacks, or that it cannot use."""


class RecipeError(NearfarError, ValueError):
    """A recipe cannot be read, or its parts do not fit together.

    ``problems`` holds every problem found, each a complete sentence.
    """

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class InputError(NearfarError, ValueError):
    """A tensor has the wrong shape, dtype, device or range."""


class ConfigError(NearfarError, ValueError):
    """A run's configuration has an unknown key or a value it cannot use."""


class DataError(NearfarError, ValueError):
    """A data set is missing, unreadable or too small for what was asked of it."""


class CheckpointError(NearfarError, ValueError):
    """A file of weights, or of a run, is missing, damaged or made for something else."""


class Diverged(NearfarError, ArithmeticError):
    """The loss of a training run became infinite or not a number."""


class RankFailed(NearfarError):
    """A process of a run ended before the run did."""


class MissingExtra(NearfarError, ImportError):
    """An optional dependency is not installed; the message names the command that installs it."""

    def __init__(self, purpose: str, *, extra: str) -> None:
        super().__init__(f"{purpose} needs an optional part of nearfar: pip install 'nearfar[{extra}]'")
        self.extra = extra


class NearfarWarning(UserWarning):
    """The root of every warning nearfar gives."""


class DeprecatedName(NearfarWarning, FutureWarning):
    """A part was asked for by a former name."""


class CollapseWarning(NearfarWarning):
    """The embeddings of a batch have nearly become one point."""
