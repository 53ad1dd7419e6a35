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
        return _PLAN.validate_python(content.get("plan"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is a broken plan: {at}: {first['msg'].lower()}") from None
