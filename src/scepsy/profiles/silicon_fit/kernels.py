"""Likeness as learned once from one half of the measured groups.

Written by ``tools/fit_silicon_kernel.py``; nothing here was tuned on the other half.
"""

from scepsy.profiles.silicon_fit.kernel import Kernel

HALF_SEED = 0
"""Seed of the split of groups of which the first half chose these kernels."""

TTFT_KERNEL = Kernel(
    names=(
        1.173,  # engine
        0.7711,  # engine_version
        0.03008,  # gpu_type
        0.6915,  # gpu_generation
        0.03293,  # precision
        2.216,  # llm
        0.3281,  # llm_family
        0.2009,  # expert_parallel
        0.08635,  # attention_copies
        0.01554,  # group
    ),
    quantities=(
        0.03352,  # concurrency
        0.1269,  # input_tokens
        0.009366,  # output_tokens
        0.01157,  # gpus
        0.009702,  # physics
        0.03235,  # prefill_load
        0.6115,  # kv_pressure
        0.005974,  # weights_time
        0.003784,  # kv_time
        0.01805,  # prefill_time
        0.004396,  # links
    ),
    amplitudes=(
        0.05378,
        2.715,
        0.08133,
    ),
    rates=(
        0.221,
        0.1891,
        1.474,
    ),
    common=0.08374,
    noise=0.0136,
)

TPOT_KERNEL = Kernel(
    names=(
        0.3075,  # engine
        1.947,  # engine_version
        0.0617,  # gpu_type
        0.3486,  # gpu_generation
        0.08296,  # precision
        1.743,  # llm
        0.4055,  # llm_family
        0.3937,  # expert_parallel
        0.06209,  # attention_copies
        0.05291,  # group
    ),
    quantities=(
        0.03389,  # concurrency
        0.008642,  # input_tokens
        0.002196,  # output_tokens
        0.03883,  # gpus
        0.0919,  # physics
        0.1471,  # prefill_load
        0.0438,  # kv_pressure
        0.006911,  # weights_time
        0.005829,  # kv_time
        0.00386,  # prefill_time
        0.004203,  # links
    ),
    amplitudes=(
        0.3493,
        0.05721,
        0.03325,
    ),
    rates=(
        0.1709,
        0.4383,
        0.584,
    ),
    common=0.04152,
    noise=0.001618,
)
