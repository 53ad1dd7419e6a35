"""YAML files that people write: read strictly, and wrong ones answered with file, line and key."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from scepsy.errors import InputError, MissingError

Loc = tuple[int | str, ...]
"""Where a value sits: the keys and indexes that lead to it."""

_Model = TypeVar("_Model", bound=BaseModel)


def load_yaml(path: Path, model: type[_Model], *, what: str) -> _Model:
    """Read a file as a model that forbids unknown keys.

    Args:
        path: the file.
        model: what it must hold.
        what: what the file is, for messages, e.g. ``cluster file``.

    Raises:
        MissingError: there is no such file.
        InputError: it is not YAML, repeats a key, or does not hold what it must; with the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingError(f"there is no {what} at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the {what} {path}: {error}") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = dict(_lines(root, ())) if root is not None else {}
        value = yaml.safe_load(text)
    except _RepeatedKeyError as error:
        raise InputError(f"{path}, {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {_problem(error)}") from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _input_error(path, model, error, lines) from None


class _RepeatedKeyError(Exception):
    """YAML that names a key twice; the parser would keep the last in silence."""


def _lines(node: yaml.Node, loc: Loc) -> Iterator[tuple[Loc, int]]:
    """The line (from 1) of every value, by where it sits; a mapping's value has its key's line."""
    if not loc:
        yield (), node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise _RepeatedKeyError(
                    f"line {key.start_mark.line + 1}: `{key.value}` is repeated"
                )
            seen.add(key.value)
            yield (*loc, key.value), key.start_mark.line + 1
            yield from _lines(value, (*loc, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            yield (*loc, at), item.start_mark.line + 1
            yield from _lines(item, (*loc, at))


def _problem(error: yaml.YAMLError) -> str:
    """The parser's complaint in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}" if mark is not None else str(problem)


def _input_error(
    path: Path, model: type[BaseModel], error: ValidationError, lines: dict[Loc, int]
) -> InputError:
    """The first thing that is wrong, in words; the count of others.

    Unknown keys come first: a misspelt key is also missing.
    """
    found = error.errors(include_url=False)
    first, *others = sorted(found, key=lambda one: one["type"] != "extra_forbidden")
    loc: Loc = first["loc"]
    known = loc
    while known not in lines and known:  # a key that is missing: the line of what lacks it
        known = known[:-1]
    where = f"{path}, line {lines[known]}" if known in lines else str(path)
    more = f" (and {len(others)} more)" if others else ""
    hint = None
    if first["type"] == "extra_forbidden":
        keys = _keys(model, loc)
        close = [f"`{key}`" for key in get_close_matches(str(loc[-1]), keys, n=2)]
        hint = f"did you mean {' or '.join(close)}?" if close else f"known keys: {', '.join(keys)}"
        problem = f"unknown key `{_dotted(loc)}`"
    elif first["type"] == "missing":
        problem = f"`{_dotted(loc)}` is missing"
    else:
        problem = f"`{_dotted(loc)}`: {first['msg'].removeprefix('Value error, ').lower()}"
        if isinstance(first["input"], int | float | str):
            problem += f", got {first['input']!r}"
    return InputError(f"{where}: {problem}{more}", hint=hint)


def _dotted(loc: Loc) -> str:
    """``nodes[0].gpus``; the whole file where nothing leads to it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".") or "the file"


def _keys(model: type[BaseModel], loc: Loc) -> Sequence[str]:
    """The keys that the model knows where an unknown one was found."""
    at: type[BaseModel] = model
    for part in loc[:-1]:
        if isinstance(part, str):
            at = _item_model(at, part)
    return sorted(at.model_fields)


def _item_model(model: type[BaseModel], key: str) -> type[BaseModel]:
    annotation = model.model_fields[key].annotation
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
