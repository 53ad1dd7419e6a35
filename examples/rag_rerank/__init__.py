"""Retrieval-augmented generation with a reranker, as a LangGraph graph."""

from examples.rag_rerank.workflow import RagRerank

__all__ = ["RagRerank"]
