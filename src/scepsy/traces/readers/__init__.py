"""Readers: one file format a module, each turning lines or rows into calls."""
