"""Placement: which GPUs each replica sits on. Pure."""
