"""Gaps between calls of recorded sessions, and forecasts of them that are compared."""
