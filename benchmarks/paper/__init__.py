"""The published evaluation, regenerated from seeds: `python -m benchmarks.paper`."""
