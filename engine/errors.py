"""Everything that can go wrong and be said in one sentence.

AuscultError                what a person reads: what is wrong, where, what to do
├── Refused                 the thing given cannot be used (a file, a spec, a checkpoint)
├── Unknown                 no such name; says what is near it
├── Unavailable             it exists but not here: no network, no such device, no such package
├── Cancelled               a person asked a run to stop
└── Interrupted             the machine asked a run to stop; it will go on later
"""

import difflib
import errno
from collections.abc import Iterable


class AuscultError(Exception):
    """A failure whose text is meant for the person who caused it or can mend it."""


class Refused(AuscultError):
    """The thing given cannot be used as it is."""


class Unknown(AuscultError):
    """A name that nothing answers to."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3)
        if near:
            hint = f"Did you mean {' or '.join(near)}?"
        elif known:
            shown = ", ".join(known[:12])
            hint = f"There is: {shown}{' ...' if len(known) > 12 else ''}."
        else:
            hint = f"There is no {kind} yet."
        super().__init__(f"There is no {kind} called '{name}'. {hint}")


class Unavailable(AuscultError):
    """Something that exists but cannot be had here and now."""


class Cancelled(AuscultError):
    """A person asked this run to stop."""


class Interrupted(AuscultError):
    """The machine asked this run to stop; the queue starts it again from its checkpoint."""


def explain(error: BaseException) -> str:
    """One sentence about a failure: its own text when it was meant for a person, else its kind and its first line."""
    if isinstance(error, AuscultError):
        return str(error)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "The disk is full: free some space, then resume it."
    if isinstance(error, MemoryError):
        return "It ran out of memory: choose less at a time, or a smaller model."
    said = str(error).strip().splitlines()
    return f"It failed unexpectedly ({type(error).__name__}{': ' + said[0][:300] if said else ''}); the log has the details."
