"""The example workflows by name."""

from collections.abc import Mapping

from examples.beam_search import BeamSearch
from examples.coding_agent import CodingAgent
from examples.rag_rerank import RagRerank
from examples.workflow import ExampleWorkflow

WORKFLOWS: Mapping[str, ExampleWorkflow] = {
    workflow.name: workflow for workflow in (BeamSearch(), RagRerank(), CodingAgent())
}
