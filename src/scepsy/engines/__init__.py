"""Engines: HTTP servers that answer calls, emulated or real."""
