"""A coding agent: plan, write, run the tests, review, and write again."""

from examples.coding_agent.workflow import CodingAgent

__all__ = ["CodingAgent"]
