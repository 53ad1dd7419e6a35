"""Traces: what happened, kept in SQLite, read from files, reduced to demand."""
