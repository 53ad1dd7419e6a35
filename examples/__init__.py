"""Workflows that call several LLMs, for any endpoint that speaks the OpenAI API."""
