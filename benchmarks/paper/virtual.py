"""Run the examples' own code in virtual time: a loop whose clock jumps, and LLMs without HTTP.

The program, its OpenAI client and its prompts are the ordinary ones; only what carries the client's
bytes is replaced. Answers come from the scripts of the emulated engines, times from the engine
model, tokens and prefix blocks from the same functions that gateway and emulated engine use.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, TypeVar, TypeVarTuple

import httpx2
import orjson
from openai import AsyncOpenAI

from scepsy.engines.reply import MAX_HASHED_BYTES, make_replies, make_scores, make_vectors
from scepsy.engines.request import parse_generation, parse_pooling
from scepsy.engines.script import Script
from scepsy.gateway.identify import EXECUTION_HEADER, ROLE_HEADER, WORKFLOW_HEADER
from scepsy.model.execution import Call, CallId, Endpoint, ExecutionId
from scepsy.model.prompt import block_ids, count_tokens
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.policy.route import CallView
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine import EngineCall, Finished, FirstToken
from scepsy.sim.fleet import Fleet, ServedGroup, replica_names

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")
MAX_CONTEXT_TOKENS = 131_072
_ENDPOINTS = {
    "/v1/chat/completions": Endpoint.CHAT,
    "/v1/embeddings": Endpoint.EMBEDDING,
    "/v1/rerank": Endpoint.RERANK,
}


class _Jump(selectors.DefaultSelector):
    """Never waits: where nothing is ready, the time until the next timer is over at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("in virtual time nothing is left that could go on")
        if not ready and timeout:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which sleeping takes no time, and threads do not exist."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        return self._jump.now_s

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Arguments], _Result], *args: *_Arguments
    ) -> asyncio.Future[_Result]:
        """Run at once: what another thread did would come at a time of its own."""
        del executor
        future: asyncio.Future[_Result] = self.create_future()
        future.set_result(func(*args))
        return future


class VirtualEngines:
    """One replica of each LLM in the running loop, and the calls that they have served."""

    def __init__(self, specs: Mapping[LlmName, EngineSpec]) -> None:
        self.calls: list[Call] = []
        """By end."""
        self._fleet = Fleet(
            ServedGroup(llm, spec, replica_names(llm, 1)) for llm, spec in specs.items()
        )
        self._loop = asyncio.get_running_loop()
        self._pending: dict[str, tuple[Call, asyncio.Future[None]]] = {}
        self._started = 0

    async def serve(self, call: Call) -> None:
        """Give a call that starts now to its engine, and wait for its end."""
        call = replace(call, id=CallId(str(self._started)))
        self._started += 1
        ended: asyncio.Future[None] = self._loop.create_future()
        self._pending[call.id] = call, ended
        view = CallView(
            execution=call.execution,
            workflow=call.workflow,
            role=call.role,
            prompt_tokens=call.prompt_tokens,
            prefix_blocks=call.prefix_blocks,
        )
        self._fleet.submit(
            call.start_s,
            call.llm,
            view,
            EngineCall(
                id=call.id,
                prompt_tokens=call.prompt_tokens,
                output_tokens=call.output_tokens,
                prefix_blocks=call.prefix_blocks,
                output_blocks=call.output_blocks,
            ),
        )
        self._arm()
        await ended

    def _arm(self) -> None:
        at_s = self._fleet.next_event_s()
        if at_s < float("inf"):
            self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        for event in self._fleet.advance(self._loop.time()):
            call, ended = self._pending[event.call_id]
            if isinstance(event, FirstToken):
                self._pending[event.call_id] = replace(call, first_token_s=event.at_s), ended
            elif isinstance(event, Finished):
                del self._pending[event.call_id]
                done = replace(call, end_s=event.at_s, cached_tokens=event.cached_tokens)
                self.calls.append(done)
                ended.set_result(None)
        self._arm()


class VirtualTransport(httpx2.AsyncBaseTransport):
    """Answers the requests of an OpenAI client from scripts, when the engines are done."""

    def __init__(self, engines: VirtualEngines, scripts: Sequence[Script], seed: int) -> None:
        self._engines = engines
        self._scripts = scripts
        self._seed = seed

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        endpoint = _ENDPOINTS[request.url.path]
        body = orjson.loads(await request.aread())
        answer = self._chat if endpoint is Endpoint.CHAT else self._pool
        reply, call = answer(endpoint, body)
        start_s = asyncio.get_running_loop().time()
        headers = request.headers
        await self._engines.serve(
            Call(
                id=CallId(""),
                execution=ExecutionId(headers[EXECUTION_HEADER]),
                workflow=WorkflowName(headers[WORKFLOW_HEADER]),
                llm=LlmName(body["model"]),
                role=Role(headers[ROLE_HEADER]),
                endpoint=endpoint,
                start_s=start_s,
                end_s=float("inf"),
                **call,
            )
        )
        return httpx2.Response(
            200, headers={"content-type": "application/json"}, content=orjson.dumps(reply)
        )

    def _chat(self, endpoint: Endpoint, body: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        (made,) = make_replies(
            parse_generation(endpoint, body),
            self._scripts,
            seed=self._seed,
            max_context_tokens=MAX_CONTEXT_TOKENS,
        )
        choice = {"index": 0, "message": made.message(), "finish_reason": made.finish_reason}
        call = {
            "prompt_tokens": made.prompt_tokens,
            "output_tokens": made.tokens,
            "prefix_blocks": made.prefix_blocks,
            "output_blocks": made.output_blocks,
        }
        return {"object": "chat.completion", "choices": [choice]}, call

    def _pool(self, endpoint: Endpoint, body: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        asked = parse_pooling(endpoint, body)
        reply: dict[str, Any]
        if endpoint is Endpoint.EMBEDDING:
            vectors = make_vectors(asked, self._scripts, seed=self._seed)
            rows = [{"index": at, "embedding": list(v)} for at, v in enumerate(vectors)]
            reply = {"object": "list", "model": body["model"], "data": rows}
        else:
            scores = make_scores(asked, self._scripts, seed=self._seed)
            reply = {"results": [{"index": n, "relevance_score": s} for n, s in enumerate(scores)]}
        call = {
            "prompt_tokens": max(1, count_tokens(asked.prompt)),
            "output_tokens": 0,
            "prefix_blocks": block_ids(asked.prompt[:MAX_HASHED_BYTES]),
        }
        return reply, call


def client_of(transport: httpx2.AsyncBaseTransport) -> AsyncOpenAI:
    """The ordinary client, over a transport."""
    return AsyncOpenAI(
        base_url="http://engines/v1",
        api_key="none",
        max_retries=0,
        timeout=None,
        http_client=httpx2.AsyncClient(transport=transport, timeout=None),
    )


def run_virtually(main: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run a coroutine function in a loop of virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())
