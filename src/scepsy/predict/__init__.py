"""Predictors: latency and throughput of workflows on an allocation. Pure."""
