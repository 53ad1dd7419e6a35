"""The command line that the examples share: run some executions one after the other, and print."""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from uuid import uuid4

from examples.connect import BASE_URL, as_execution, connect
from examples.workflow import ExampleWorkflow, Result


def parser_for(module: str, models: dict[str, str]) -> argparse.ArgumentParser:
    """The options that every example takes."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    add_endpoint_options(parser)
    parser.add_argument("--executions", type=int, default=5, help="how many to run (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other answers")
    roles = ", ".join(f"{role}={model}" for role, model in models.items())
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="ROLE=NAME",
        help=f"the LLM of a role, repeatable (default {roles})",
    )
    return parser


def add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    """Where to send calls."""
    parser.add_argument("--base-url", help=f"default $OPENAI_BASE_URL or {BASE_URL}")
    parser.add_argument("--api-key", help="default $OPENAI_API_KEY")


def parse_models(given: Sequence[str]) -> dict[str, str]:
    """LLM names by role, from ``role=name``.

    Raises:
        ValueError: one is not of that form.
    """
    if bad := [text for text in given if "=" not in text]:
        raise ValueError(f"`{bad[0]}` is not of the form ROLE=NAME")
    return dict(text.split("=", 1) for text in given)


def run_and_print(workflow: ExampleWorkflow, options: argparse.Namespace) -> None:
    """Run executions over the tasks in turn; one JSON line each on stdout."""
    asyncio.run(_run_and_print(workflow.with_models(parse_models(options.model)), options))


async def _run_and_print(workflow: ExampleWorkflow, options: argparse.Namespace) -> None:
    async with connect(options.base_url, options.api_key) as client:
        label = uuid4().hex[:8]
        run = await workflow.prepare(client)
        for at in range(options.executions):
            labelled = as_execution(client, workflow.name, f"{workflow.name}-{label}-{at}")
            start_s = time.monotonic()
            result = await run(labelled, at % len(workflow.tasks), options.seed + at)
            took_s = round(time.monotonic() - start_s, 3)
            print(json.dumps({"took_s": took_s, **_fields(result)}), flush=True)


def _fields(result: Result) -> dict[str, object]:
    """All that a result holds; every example gives a dataclass."""
    if not is_dataclass(result) or isinstance(result, type):
        raise TypeError(f"{type(result).__name__} is no dataclass")
    return asdict(result)
