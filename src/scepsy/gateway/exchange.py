"""A call while it is served: what is known of it so far, and the record it becomes."""

from collections.abc import Callable
from dataclasses import dataclass, field

from scepsy.gateway.answer import Answer
from scepsy.gateway.hints import NOTHING_TOLD, Told
from scepsy.gateway.identify import Identity
from scepsy.model.execution import Call, CallId, CallStatus, Endpoint, ReplicaName
from scepsy.model.prompt import block_ids, count_tokens
from scepsy.model.workflow import LlmName
from scepsy.policy.route import CallView

MAX_HASHED_BYTES = 1024**2
"""Prompt and output are hashed into blocks up to here: 256 Ki tokens, in about 5 ms."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One call and its answer, filled in as it goes."""

    id: CallId
    identity: Identity
    llm: LlmName
    endpoint: Endpoint
    start_s: float
    prompt: bytes
    request: bytes
    told: Told = NOTHING_TOLD
    prompt_tokens: int = field(init=False)
    prefix_blocks: tuple[int, ...] = field(init=False)
    answer: Answer = field(default_factory=Answer)
    status: CallStatus = CallStatus.CANCELLED
    """What holds if nothing more happens: the client left."""
    replica: ReplicaName | None = None
    first_token_s: float | None = None
    response: bytearray | None = None
    """The answer's bytes, where they are recorded."""
    sends: int = 0
    """How often it was sent to a replica."""
    has_begun: bool = False
    """The client has got something: the call can't be sent again."""
    on_begun: Callable[[], None] | None = None
    on_first_token: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.prompt_tokens = count_tokens(self.prompt)
        self.prefix_blocks = block_ids(self.prompt[:MAX_HASHED_BYTES])

    def view(self) -> CallView:
        """What a routing policy may know."""
        return CallView(
            execution=self.identity.execution,
            workflow=self.identity.workflow,
            role=self.identity.role,
            prompt_tokens=self.prompt_tokens,
            prefix_blocks=self.prefix_blocks,
            start_s=self.start_s,
            id=self.id,
            tenant=self.told.tenant,
            hints=self.told.hints,
        )

    def begun(self) -> None:
        """The client gets the first of the answer now."""
        self.has_begun = True
        if self.on_begun is not None:
            self.on_begun()

    def first_token(self, at_s: float | None) -> None:
        """When the first token came, as far as is known."""
        if at_s is not None and self.first_token_s is None:
            self.first_token_s = at_s
            if self.on_first_token is not None:
                self.on_first_token()

    @property
    def output_tokens(self) -> int:
        """Of the answer so far; where the engine gave no token counts, bytes are counted."""
        said = self.answer.usage.output_tokens
        return count_tokens(self.answer.all_text()) if said is None else said

    def call(self, end_s: float) -> Call:
        """The record of the call; where the engine gave no token counts, bytes are counted."""
        usage = self.answer.usage
        prompt_tokens = usage.prompt_tokens
        return Call(
            id=self.id,
            execution=self.identity.execution,
            workflow=self.identity.workflow,
            llm=self.llm,
            role=self.identity.role,
            endpoint=self.endpoint,
            start_s=self.start_s,
            first_token_s=self.first_token_s,
            end_s=end_s,
            prompt_tokens=self.prompt_tokens if prompt_tokens is None else prompt_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=usage.cached_tokens,
            status=self.status,
            replica=self.replica,
            prefix_blocks=self.prefix_blocks,
            output_blocks=self._output_blocks(),
        )

    def _output_blocks(self) -> tuple[int, ...]:
        if self.endpoint not in (Endpoint.CHAT, Endpoint.COMPLETION):
            return ()
        text = self.answer.text().encode(errors="replace")
        if not text or len(self.prompt) >= MAX_HASHED_BYTES:
            return ()
        return block_ids((self.prompt + text)[:MAX_HASHED_BYTES])[len(self.prefix_blocks) :]
