"""Profiles: what an LLM can do on a GPU, measured, simulated, or published."""
