"""Which program a request belongs to: what its client says, else the prompt that it continues."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

LAST = "scepsy_last"
"""Among a request's ``vllm_xargs``: other than 0 if the program calls no more after this one."""
_SESSION = "session_id"
"""The same, for clients that cannot set the field or the header of this name."""
_MAX_KINDS = 1024
"""Kinds that are told apart: names come from clients, so there may be no end of them."""
_REMEMBERED = 65_536
"""Calls without a session whose prompts are remembered."""


class Request(Protocol):
    """What vLLM's scheduler knows of a call."""

    request_id: str
    sampling_params: Any
    block_hashes: Sequence[Any]
    num_prompt_tokens: int

    def is_finished(self) -> bool:
        """Whether it has left, and not only lost its blocks for a while."""
        ...


@dataclass(frozen=True, slots=True)
class Whose:
    """Whom a call is of."""

    program: str
    kind: str
    """What the wait for the next call depends on: ``<workflow>/<role>`` where that is known."""
    is_last: bool
    is_said: bool
    """By the client, and not found by the prompt."""


class Programs:
    """Names the programs of calls."""

    def __init__(self, block_tokens: int) -> None:
        """Take the tokens of a block."""
        self._block_tokens = block_tokens
        self._kinds: set[str] = set()
        self._by_prompt: OrderedDict[Any, str] = OrderedDict()

    def whose(self, request: Request) -> Whose:
        """Whom a call that comes is of."""
        extra = getattr(request.sampling_params, "extra_args", None)
        said: Mapping[str, Any] = extra if isinstance(extra, Mapping) else {}
        is_last = bool(said.get(LAST))
        session = getattr(request, _SESSION, None) or said.get(_SESSION)
        if isinstance(session, str) and session:
            return Whose(session, self._kind(session), is_last, is_said=True)
        return Whose(self._continued(request), "", is_last, is_said=False)

    def ended(self, whose: Whose, request: Request) -> None:
        """Remember the prompt of a call, with its answer and without, if nobody named it."""
        if whose.is_said:
            return
        hashes = request.block_hashes
        prompt_blocks = request.num_prompt_tokens // self._block_tokens
        for length in (prompt_blocks, len(hashes)):
            if 0 < length <= len(hashes):
                self._by_prompt[hashes[length - 1]] = whose.program
                self._by_prompt.move_to_end(hashes[length - 1])
        while len(self._by_prompt) > _REMEMBERED:
            self._by_prompt.popitem(last=False)

    def _kind(self, session: str) -> str:
        kind = session.rpartition("/")[0]
        if kind not in self._kinds and len(self._kinds) >= _MAX_KINDS:
            return ""
        self._kinds.add(kind)
        return kind

    def _continued(self, request: Request) -> str:
        known = self._by_prompt
        for prefix in reversed(request.block_hashes):
            if (program := known.get(prefix)) is not None:
                return program
        return f"?{request.request_id}"
