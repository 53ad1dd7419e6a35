"""What a decision of the retention policy costs with 10,000 programs and half a million blocks.

Programs call at random instants, each with 50 blocks of its own after a shared prefix of 16; the
cache has room for half of them, so that each call chooses blocks to forget. One JSON line says how
long a choice of one block takes, and what a call costs in all for each of its blocks.
"""

import tracemalloc
from random import Random
from time import perf_counter_ns

from benchmarks.host import report
from scepsy.policy.retain_value import ByValue

PROGRAMS, OWN_BLOCKS, SHARED_BLOCKS = 10_000, 50, 16
KEPT_BLOCKS, CALLS, SEED = 250_000, 5_000, 5


def quantile_us(sorted_ns: list[int], share: float) -> float:
    return round(sorted_ns[int(share * (len(sorted_ns) - 1))] / 1e3, 2)


def main() -> None:
    rng = Random(SEED)
    policy = ByValue()
    now_s, choices, calls_ns = 0.0, list[int](), 0
    shared = tuple(range(-SHARED_BLOCKS, 0))
    tracemalloc.start()
    tracemalloc_bytes = 0
    for call in range(PROGRAMS + CALLS):
        is_timed = call >= PROGRAMS
        if call == PROGRAMS:
            tracemalloc_bytes = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        program = rng.randrange(PROGRAMS) if is_timed else call
        chain = (*shared, *range(program * OWN_BLOCKS, (program + 1) * OWN_BLOCKS))
        now_s += rng.expovariate(100.0)
        begin = perf_counter_ns()
        policy.arrived(now_s, str(program), chain)
        policy.scheduled(now_s, str(program))
        policy.wake([block for block in chain if block in policy])
        policy.ended(now_s + 0.5, str(program), f"kind-{program % 7}", chain)
        policy.keep(chain[::-1])
        if is_timed:
            calls_ns += perf_counter_ns() - begin
        while len(policy) > KEPT_BLOCKS:
            begin = perf_counter_ns()
            policy.evict(now_s + 0.5)
            if is_timed:
                choices.append(perf_counter_ns() - begin)
    choices.sort()
    report(
        "retention_cost",
        repeats=len(choices),
        seed=SEED,
        programs=PROGRAMS,
        kept_blocks=KEPT_BLOCKS,
        choice_p50_us=quantile_us(choices, 0.5),
        choice_p99_us=quantile_us(choices, 0.99),
        choice_p999_us=quantile_us(choices, 0.999),
        choice_max_us=quantile_us(choices, 1.0),
        call_us=round(calls_ns / CALLS / 1e3, 1),
        call_us_per_block=round(calls_ns / CALLS / 1e3 / (SHARED_BLOCKS + OWN_BLOCKS), 3),
        bytes_per_kept_block=round(tracemalloc_bytes / KEPT_BLOCKS),
    )


if __name__ == "__main__":
    main()
