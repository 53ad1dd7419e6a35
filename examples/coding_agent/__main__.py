"""Run the coding agent from the command line."""

from examples.cli import parser_for, run_and_print
from examples.coding_agent.workflow import MODELS, CodingAgent

if __name__ == "__main__":
    run_and_print(CodingAgent(), parser_for("examples.coding_agent", MODELS).parse_args())
