"""What a client says ahead: by headers ``x-scepsy-...``, or in the body under ``scepsy``.

A header goes before the body, and both before what other systems' clients say. What can't be read
is left out: a hint that is wrong or missing costs time, never a call.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from scepsy.errors import InputError
from scepsy.gateway.identify import clean_name
from scepsy.policy.program import NO_HINTS, NO_TENANT, Hints, TenantName, ToolName

TENANT, PRIORITY, DEADLINE, LAST = "tenant", "priority", "deadline_s", "last"
NEXT_TOOL, GAP, OUTPUT = "next_tool", "gap_s", "output_tokens"
FIELDS: Mapping[str, str] = {
    TENANT: "x-scepsy-tenant",
    PRIORITY: "x-scepsy-priority",
    DEADLINE: "x-scepsy-deadline",
    NEXT_TOOL: "x-scepsy-next-tool",
    GAP: "x-scepsy-gap",
    OUTPUT: "x-scepsy-output-tokens",
    LAST: "x-scepsy-last",
}
"""Fields of the body's ``scepsy`` object, and the header that says the same."""
_OTHERS_HEADERS: Mapping[str, tuple[str, ...]] = {
    TENANT: (
        "x-llm-d-inference-fairness-id",
        "x-gateway-inference-fairness-id",
        "x-smg-tenant-id",
        "x-tenant-id",
    ),
    LAST: ("x-dynamo-session-final",),
}
_OTHERS_PATHS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    DEADLINE: (("vllm_xargs", "agentic_context", "deadline_seconds"),),
    OUTPUT: (
        ("vllm_xargs", "agentic_context", "expected_output_length"),
        ("nvext", "agent_hints", "osl"),
    ),
}
MOST_PRIORITY = 4
"""Levels up or down."""
_TRUE = frozenset({"1", "true", "yes"})
_FALSE = frozenset({"0", "false", "no"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """What was said of one call."""

    tenant: TenantName = NO_TENANT
    hints: Hints = NO_HINTS
    is_last: bool = False
    """No call of its execution follows it."""
    bad: tuple[str, ...] = ()
    """Fields that could not be read."""


NOTHING_TOLD = Told()


def parse_hints(headers: Mapping[str, str], body: Mapping[str, object], now_s: float) -> Told:
    """What is said of a call that comes now; deadlines are relative to that."""
    said = {name: found for name in FIELDS if (found := _said(name, headers, body)) is not None}
    if not said:
        return NOTHING_TOLD
    bad: list[str] = []

    def read(name: str, parse: Callable[[str], T]) -> T | None:
        if name not in said:
            return None
        try:
            return parse(said[name])
        except (ValueError, OverflowError):
            bad.append(name)
            return None

    deadline_s = read(DEADLINE, float)
    hints = NO_HINTS
    changes: dict[str, object] = {
        PRIORITY: read(PRIORITY, _priority),
        DEADLINE: None if deadline_s is None else now_s + deadline_s,
        NEXT_TOOL: ToolName(clean_name(said[NEXT_TOOL])) if NEXT_TOOL in said else None,
        GAP: read(GAP, float),
        OUTPUT: read(OUTPUT, float),
    }
    for name, value in changes.items():
        if value is not None:
            try:
                hints = replace(hints, **{name: value})  # type: ignore[arg-type]
            except InputError:
                bad.append(name)
    return Told(
        tenant=TenantName(clean_name(said.get(TENANT, ""))),
        hints=hints,
        is_last=read(LAST, _flag) is True,
        bad=tuple(bad),
    )


def _said(name: str, headers: Mapping[str, str], body: Mapping[str, object]) -> str | None:
    if found := headers.get(FIELDS[name]):
        return found
    for path in (("scepsy", name), *_OTHERS_PATHS.get(name, ())):
        value: object = body
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str | int | float):
            return str(value)
    return next((headers[h] for h in _OTHERS_HEADERS.get(name, ()) if headers.get(h)), None)


def _priority(text: str) -> int:
    return max(-MOST_PRIORITY, min(MOST_PRIORITY, int(text)))


def _flag(text: str) -> bool:
    low = text.strip().lower()
    if low not in _TRUE | _FALSE:
        raise ValueError
    return low in _TRUE
