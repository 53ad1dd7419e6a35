"""Readers of trace files: one format a module."""
