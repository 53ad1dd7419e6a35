"""Deployment: from a plan to running engines."""
