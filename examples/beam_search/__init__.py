"""Beam search over reasoning steps: a generator LLM proposes, a verifier LLM scores."""

from examples.beam_search.workflow import BeamSearch

__all__ = ["BeamSearch"]
