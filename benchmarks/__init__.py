"""Benchmarks: one file each, one JSON line each, comparable on one machine only."""
