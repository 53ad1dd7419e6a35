"""Run retrieval with a reranker from the command line."""

from examples.cli import parser_for, run_and_print
from examples.rag_rerank.workflow import MODELS, RagRerank

if __name__ == "__main__":
    run_and_print(RagRerank(), parser_for("examples.rag_rerank", MODELS).parse_args())
