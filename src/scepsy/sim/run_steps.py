"""How far a run of steps has come by an instant."""

from collections.abc import Callable


def whole_steps(
    run_s: Callable[[int], float], start_s: float, steps: int, end_s: float, now_s: float
) -> int:
    """Steps that have ended by ``now_s``, of a run that ends after it.

    Args:
        run_s: seconds of the first so many steps, rising.
        start_s: when the run began.
        steps: steps of the run.
        end_s: when it ends.
        now_s: between the two.
    """
    low, high = 0, steps
    low_s, high_s = start_s, end_s
    while high - low > 1:  # step times change slowly: guess linearly, then look next to it
        guess = low + int((high - low) * (now_s - low_s) / (high_s - low_s))
        for tried in (guess, guess + 1):
            if low < tried < high:
                tried_s = start_s + run_s(tried)
                if tried_s <= now_s:
                    low, low_s = tried, tried_s
                else:
                    high, high_s = tried, tried_s
    return low
