"""Python's collector of cycles, in processes that simulate."""

import gc

YOUNG_OBJECTS = 50_000
"""Objects that are made, beyond those that are freed, between two collections; Python: 700."""


def collect_rarely() -> None:
    """Look for cycles seldom: simulations make millions of objects, and next to none in cycles.

    A fifth of their time went into the search. For the whole process: called where one begins.
    """
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
