"""Serving systems side by side on recorded agent sessions, in the simulator."""
