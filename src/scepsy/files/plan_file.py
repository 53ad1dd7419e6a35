"""``plan.json``: a plan as other commands read it, with a version of its own."""

from pathlib import Path
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from scepsy.errors import InputError, MissingError
from scepsy.model.plan import Plan

FORMAT = "scepsy-plan"
VERSION = 1
_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


class _Head(BaseModel):
    """What tells a plan file from others, readable in every version."""

    model_config = ConfigDict(extra="ignore")
    format: Literal["scepsy-plan"]
    version: int


def dump_plan(plan: Plan) -> bytes:
    """A plan as JSON, with a line feed at the end; equal plans give equal bytes."""
    content = {"format": FORMAT, "version": VERSION, "plan": plan}
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def save_plan(path: Path, plan: Plan) -> None:
    """Write a plan; a reader sees the old file or the new one, never a part.

    Raises:
        InputError: the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(dump_plan(plan))
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write the plan to {path}: {error.strerror}") from error


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        MissingError: there is no such file.
        InputError: it is no plan file, one of a later version, or was changed into nonsense.
    """
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingError(
            f"there is no plan at {path}", hint="make one with `scepsy plan --output plan.json`"
        ) from None
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{path} is not a plan: {error}") from error
    try:
        head = _Head.model_validate(content)
    except ValidationError:
        raise InputError(
            f"{path} is not a plan file", hint="plans are written by `scepsy plan --output`"
        ) from None
    if head.version != VERSION:
        raise InputError(
            f"{path} is a plan of version {head.version}; this Scepsy reads version {VERSION}",
            hint="make it again with this Scepsy's `scepsy plan`",
        )
    try:
        plan = _PLAN.validate_python(content.get("plan"))
        _check_turns(plan)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is a broken plan: {at}: {first['msg'].lower()}") from None
    except InputError as error:
        raise InputError(f"{path} is a broken plan: {error}", hint=error.hint) from None
    return plan


def _check_turns(plan: Plan) -> None:
    """Each replica of LLMs that take turns must sit with one of each other, and nobody else.

    Raises:
        InputError: it does not.
    """
    allocation = plan.allocation
    for together in plan.together:
        names = ", ".join(replica.name for replica in together)
        llms = allocation.turns_of(together[0].llm)
        widest = max(together, key=lambda replica: len(replica.gpus))
        if tuple(sorted(replica.llm for replica in together)) != llms or any(
            replica.gpus != widest.gpus[: len(replica.gpus)] for replica in together
        ):
            raise InputError(
                f"{', '.join(llms)} take turns, but on GPU {together[0].gpus[0]} there is {names}",
                hint="a replica of each sits on the same GPUs, or on the first of them",
            )
        for other in plan.placement.replicas:
            if other not in together and set(other.gpus) & set(widest.gpus):
                raise InputError(
                    f"{other.name} shares a GPU with {names}, which take turns on whole GPUs",
                    hint="place it elsewhere, or let it take turns, too",
                )
