"""Answer a question from passages: look up, rerank, rewrite the query if need be, generate.

    embed -> retrieve -> rerank --good enough--> generate
      ^                    |
      +----- rewrite <-----+ (the best passage fits badly, and tries are left)

The graph is LangGraph's; the calls are those of the plain ``openai`` client.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TypedDict
from uuid import uuid4

import numpy as np
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from numpy.typing import NDArray
from openai import AsyncOpenAI

from examples.connect import as_execution, as_role, chat, rerank_scores, stream_chat
from examples.rag_rerank.index import HybridIndex, Passage, read_corpus
from examples.workflow import Run, read_rows, replaced

ANSWER_PROMPT = (
    "You answer questions from the passages given and from nothing else. Explain the answer in two "
    "or three paragraphs, and cite the passages it rests on by their ids in brackets, like [tides]."
)
REWRITE_PROMPT = (
    "You improve search queries. The query below found nothing that fits. Reply with a better one "
    "alone: the technical terms that a reference text on the subject would use, in one line."
)
MODELS = {"generator": "qwen3-32b", "reranker": "qwen3-8b", "embedder": "qwen3-embedding-0.6b"}
INDEX_WORKFLOW = "rag_index"
EMBED_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question, and the passage that answers it."""

    id: str
    text: str
    passage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RagConfig:
    """How much to look up, and when to look again."""

    retrieve: int = 12
    keep: int = 4
    """Passages that the answer is generated from."""
    rewrites: int = 2
    """Tries with another query, at most."""
    accept: float = 0.5
    """A best passage with at least this relevance is good enough."""
    answer_max_tokens: int = 800
    stream: bool = True
    """Receive the answer token by token, as a user who reads along would want it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RagResult:
    """The answer, and what it took."""

    task: str
    answer: str
    correct: bool
    """The answer cites the passage that the question is about."""
    relevance: float
    """Of the best passage."""
    rewrites: int


class _State(TypedDict, total=False):
    query: str
    vector: NDArray[np.float64]
    passages: tuple[Passage, ...]
    relevance: float
    rewrites: int
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    client: AsyncOpenAI
    index: HybridIndex
    question: Question
    models: Mapping[str, str]
    config: RagConfig
    seed: int


async def run(
    client: AsyncOpenAI,
    question: Question,
    index: HybridIndex,
    *,
    models: Mapping[str, str] = MODELS,
    config: RagConfig | None = None,
    seed: int = 0,
) -> RagResult:
    """Answer one question."""
    setting = _Setting(
        client=client,
        index=index,
        question=question,
        models=models,
        config=config or RagConfig(),
        seed=seed,
    )
    state = await _graph().ainvoke(_State(query=question.text, rewrites=0), context=setting)
    return RagResult(
        task=question.id,
        answer=state["answer"],
        correct=f"[{question.passage}]" in state["answer"],
        relevance=state["relevance"],
        rewrites=state["rewrites"],
    )


async def build_index(
    client: AsyncOpenAI, passages: Sequence[Passage], *, model: str = MODELS["embedder"]
) -> HybridIndex:
    """Embed all passages, a batch at a time."""
    documents = [passage.document for passage in passages]
    vectors = [
        await embed(client, model, documents[at : at + EMBED_BATCH])
        for at in range(0, len(documents), EMBED_BATCH)
    ]
    return HybridIndex(passages, np.concatenate(vectors))


async def embed(client: AsyncOpenAI, model: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """(texts, dimensions) the vectors of some texts."""
    reply = await client.embeddings.create(
        model=model, input=list(texts), extra_headers=as_role("embedder")
    )
    ordered = sorted(reply.data, key=lambda each: each.index)
    return np.array([each.embedding for each in ordered], dtype=np.float64)


async def _embed(state: _State, runtime: Runtime[_Setting]) -> _State:
    setting = runtime.context
    vectors = await embed(setting.client, setting.models["embedder"], [state["query"]])
    return {"vector": vectors[0]}


async def _retrieve(state: _State, runtime: Runtime[_Setting]) -> _State:
    setting = runtime.context
    found = setting.index.find(state["query"], state["vector"], setting.config.retrieve)
    return {"passages": found}


async def _rerank(state: _State, runtime: Runtime[_Setting]) -> _State:
    setting = runtime.context
    found = state["passages"]
    scores = await rerank_scores(
        setting.client,
        model=setting.models["reranker"],
        query=state["query"],
        documents=[passage.document for passage in found],
    )
    order = sorted(range(len(found)), key=lambda at: -scores[at])
    return {
        "passages": tuple(found[at] for at in order[: setting.config.keep]),
        "relevance": scores[order[0]],
    }


def _after_rerank(state: _State, runtime: Runtime[_Setting]) -> str:
    config = runtime.context.config
    good = state["relevance"] >= config.accept
    return "generate" if good or state["rewrites"] >= config.rewrites else "rewrite"


async def _rewrite(state: _State, runtime: Runtime[_Setting]) -> _State:
    setting = runtime.context
    written = await chat(
        setting.client,
        role="generator",
        model=setting.models["generator"],
        messages=[
            {"role": "system", "content": REWRITE_PROMPT},
            {
                "role": "user",
                "content": f"Question: {setting.question.text}\nQuery: {state['query']}",
            },
        ],
        max_tokens=64,
        seed=setting.seed + state["rewrites"],
    )
    return {"query": written.strip() or state["query"], "rewrites": state["rewrites"] + 1}


async def _generate(state: _State, runtime: Runtime[_Setting]) -> _State:
    setting = runtime.context
    passages = "\n\n".join(f"[{each.id}] {each.document}" for each in state["passages"])
    ask = stream_chat if setting.config.stream else chat
    answer = await ask(
        setting.client,
        role="generator",
        model=setting.models["generator"],
        messages=[
            {"role": "system", "content": ANSWER_PROMPT},
            {
                "role": "user",
                "content": f"Passages:\n\n{passages}\n\nQuestion: {setting.question.text}",
            },
        ],
        max_tokens=setting.config.answer_max_tokens,
        seed=setting.seed,
    )
    return {"answer": answer}


@cache
def _graph() -> CompiledStateGraph[_State, _Setting, _State, _State]:
    graph = StateGraph(_State, context_schema=_Setting)
    graph.add_node("embed", _embed)
    graph.add_node("retrieve", _retrieve)
    graph.add_node("rerank", _rerank)
    graph.add_node("rewrite", _rewrite)
    graph.add_node("generate", _generate)
    graph.add_edge(START, "embed")
    graph.add_edge("embed", "retrieve")
    graph.add_edge("retrieve", "rerank")
    graph.add_conditional_edges("rerank", _after_rerank, ["rewrite", "generate"])
    graph.add_edge("rewrite", "embed")
    graph.add_edge("generate", END)
    return graph.compile()


def read_questions() -> tuple[Question, ...]:
    """The shipped questions."""
    rows = read_rows(Path(__file__).parent / "questions.jsonl")
    return tuple(Question(id=row["id"], text=row["text"], passage=row["passage"]) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class RagRerank:
    """Retrieval with a reranker as an example workflow."""

    models: Mapping[str, str] = field(default_factory=lambda: MODELS)
    config: RagConfig = field(default_factory=RagConfig)
    questions: tuple[Question, ...] = field(default_factory=read_questions)
    name: str = "rag_rerank"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ids of the questions."""
        return tuple(question.id for question in self.questions)

    def with_models(self, models: Mapping[str, str]) -> "RagRerank":
        """The same with other LLMs for the roles given."""
        return replace(self, models=replaced(self.models, models))

    async def prepare(self, client: AsyncOpenAI) -> Run:
        """Embed the corpus. Recorded as a workflow of its own, as it is no part of an execution."""
        indexing = as_execution(client, INDEX_WORKFLOW, f"{INDEX_WORKFLOW}-{uuid4().hex[:8]}")
        index = await build_index(indexing, read_corpus(), model=self.models["embedder"])

        async def run_one(client: AsyncOpenAI, task: int, seed: int) -> RagResult:
            return await run(
                client,
                self.questions[task],
                index,
                models=self.models,
                config=self.config,
                seed=seed,
            )

        return run_one
