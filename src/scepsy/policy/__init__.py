"""Policies: decisions that the simulator and the gateway share. Pure."""
