"""Every error this package raises on purpose.

ScepsyError
├── InputError            the caller gave something we cannot use
│   └── UnknownNameError  a name that is not in the list of known ones
├── MissingError          something that was asked for is not there (a profile, an extra, a trace)
├── StoreError            a trace store could not be read or written (full disk, locked, damaged)
├── EngineError           an engine did not answer, or answered what it must not
└── InfeasibleError       the question is valid and the answer is "it does not fit"
"""

from collections.abc import Iterable
from difflib import get_close_matches


class ScepsyError(Exception):
    """Base class. ``hint`` says what to change; the CLI prints it on its own line."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(ScepsyError):
    """The caller gave something we cannot use."""


class UnknownNameError(InputError):
    """A name that is not among the known ones; the hint lists those that come close."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = get_close_matches(name, names, n=3, cutoff=0.5)
        if close:
            hint = f"did you mean {' or '.join(close)}?"
        else:
            hint = f"known: {', '.join(names)}" if names else "there are none"
        super().__init__(f"unknown {kind} `{name}`", hint=hint)
        self.kind, self.name = kind, name


class MissingError(ScepsyError):
    """Something that was asked for is not there."""


class StoreError(ScepsyError):
    """A trace store could not be read or written: a full disk, a lock that is held, damage."""


class EngineError(ScepsyError):
    """An engine did not answer, or answered what it must not."""


class InfeasibleError(ScepsyError):
    """No plan satisfies the request. Not a bug: no traceback."""
