"""How long LLMs that share GPUs by turns may compute: Aegaeon's rule for decoding rounds."""

from collections.abc import Sequence

from scepsy.sim.turns import LONGEST_TURN_S

_LEAST_ALPHA = 0.5


def quotas_s(steps_s: Sequence[float], *, switching_s: float, token_target_s: float) -> list[float]:
    """How long each LLM's turn is in a round.

    A batch that decodes faster than the target by a factor ``n`` can wait for so long before its
    tokens are late. With ``alpha`` the reciprocal of the part of tokens that come in time, a round
    that spends ``switching_s`` on switches has turns of
    ``switching_s / (n * (alpha - sum(1 / n)))``, and the least ``alpha`` is taken for which they
    do not get too long.

    Args:
        steps_s: each LLM's time for a step.
        switching_s: of all switches of a round together.
        token_target_s: time between tokens that is aimed at; 0: turns end with their prefills.
    """
    if token_target_s <= 0:
        return [0.0] * len(steps_s)
    least_s = token_target_s / len(steps_s)  # shorter ones serve no target, and cost switches
    if switching_s <= 0:
        return [least_s] * len(steps_s)
    parts = [max(step_s / token_target_s, 1e-9) for step_s in steps_s]
    alpha = max(switching_s * max(parts) / LONGEST_TURN_S + sum(parts), _LEAST_ALPHA)
    whole_s = switching_s / (alpha - sum(parts))
    return [min(LONGEST_TURN_S, max(least_s, whole_s * part)) for part in parts]
