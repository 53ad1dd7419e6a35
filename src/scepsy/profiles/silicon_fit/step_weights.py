"""How much each term of a step counts, fitted to 2462 measured runs.

Written by ``tools/fit_step_weights.py``; the terms are those of ``step_terms.Replica``.
"""

DECODE_WEIGHTS = (1.373, 1, 0, 6.373, 0.4302, 0, 1.457, 1.187, 9.316, 2.224, 0, 0.0316)
PREFILL_WEIGHTS = (1, 0, 0, 0.2182, 0)

SOURCE = "physics fitted to 2462 runs of aiconfigurator-core 0.12.0"
MEASURED_GPU_TYPES = ("b200", "b300", "gb200", "h100", "h200")
OTHER_LLM_ERROR_FRACTION = 0.76
"""|measured / predicted - 1| of TPOT that 9 of 10 runs of an LLM stay within, fitted without it.

Its median is 0.21."""
OTHER_GPU_ERROR_FRACTION = 0.77
"""The same, fitted without the LLM and without the GPU type. Its median is 0.21."""
