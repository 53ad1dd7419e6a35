"""Step times whose sums are exact, so that histories can be compared with ==."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DyadicTimes:
    """Whole numbers of ticks, which are powers of two; more work never takes less."""

    step_ticks: int = 64
    """Of a step that computes nothing."""
    tick_s: float = 1 / 1024

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        ticks = self.step_ticks + 8 * prefill_tokens + prefill_context_tokens
        return (ticks + 4 * decodes + decode_context_tokens) * self.tick_s

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        growth = decodes * steps * (steps - 1) // 2
        ticks = steps * (self.step_ticks + 4 * decodes + decode_context_tokens) + growth
        return ticks * self.tick_s


@dataclass(frozen=True)
class EqualSteps:
    """Every step takes as long, whatever it computes."""

    each_s: float

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return self.each_s

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return self.each_s * steps
