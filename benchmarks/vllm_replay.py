"""Programs through a real vLLM: for benchmarks.vllm_eviction. Runs in vLLM's own environment.

    VLLM_PLUGINS=scepsy .venv/vllm/bin/python benchmarks/vllm_replay.py workload.json model-folder

The model is random and tiny; its tokens are real. The engine's clock, as far as the order of
eviction sees one, is made up: a step takes as long as the workload says, and what waits for a tool
does not wait for real. So a run does not depend on how busy the machine is.
"""

import json
import sys
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import torch
import vllm
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import EngineArgs, LLMEngine, SamplingParams

VOCABULARY, BLOCK_TOKENS, MAX_TOKENS = 512, 32, 2048


def write_model(folder: Path) -> None:
    """A Llama of two layers with random weights, and no tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32,
        max_position_embeddings=MAX_TOKENS, initializer_range=0.2, dtype=torch.float32,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


@dataclass
class Program:
    """One program as it goes."""

    name: str
    turns: list[dict[str, float]]
    rng: Random
    tokens: list[int] = field(default_factory=list)
    """Of its next prompt."""

    def ask(self) -> dict[str, float]:
        turn = self.turns.pop(0)
        self.tokens += self.rng.choices(range(3, VOCABULARY), k=int(turn["new_tokens"]))
        return turn


class Replay:
    """The engine, and the programs that call it."""

    def __init__(self, workload: dict[str, Any], model: Path) -> None:
        self.workload = workload
        self.now_s = 0.0
        args = EngineArgs(
            model=str(model), skip_tokenizer_init=True, dtype="float32", seed=0,
            max_model_len=MAX_TOKENS, enforce_eager=True, block_size=BLOCK_TOKENS,
            num_gpu_blocks_override=int(workload["blocks"]), max_num_seqs=8,
            kv_cache_memory_bytes=64 * 1024**2, disable_log_stats=True,
            distributed_executor_backend="uni",
        )  # fmt: skip
        self.engine = LLMEngine.from_engine_args(args)
        core: Any = self.engine.engine_core
        self.manager = core.engine_core.scheduler.kv_cache_manager
        self.retainer = getattr(self.manager, "_scepsy_retainer", None)
        if self.retainer is not None:
            self.retainer.now_s = lambda: self.now_s
        self.prompt_tokens = self.cached_tokens = 0
        self.by_call: list[tuple[str, str]] = []

    def run(self) -> dict[str, Any]:
        serial = count()
        due: list[tuple[float, int, Program]] = []
        for each in self.workload["programs"]:
            name = each["name"]
            program = Program(name, list(each["turns"]), Random(name))
            shared = Random(each.get("shared", ""))
            program.tokens = shared.choices(range(3, VOCABULARY), k=each.get("shared_tokens", 0))
            heappush(due, (each["start_s"], next(serial), program))
        running: dict[str, Program] = {}
        while due or running:
            if not running:
                self.now_s = max(self.now_s, due[0][0])
            while due and due[0][0] <= self.now_s:
                program = heappop(due)[2]
                running[self._ask(program, next(serial))] = program
            for output in self.engine.step():
                if output.finished:
                    program = running.pop(output.request_id)
                    self._answered(program, output)
                    if program.turns:
                        at_s = self.now_s + program.turns[0]["gap_s"]
                        heappush(due, (at_s, next(serial), program))
            self.now_s += self.workload["step_s"]
        return self._figures()

    def _ask(self, program: Program, number: int) -> str:
        turn = program.ask()
        is_last = self.workload.get("tells_ends") and not program.turns
        params = SamplingParams(
            temperature=0.0, max_tokens=int(turn["output_tokens"]), ignore_eos=True,
            detokenize=False, extra_args={"scepsy_last": 1} if is_last else None,
        )  # fmt: skip
        name = f"{program.name}#{number}"
        says = {} if self.workload.get("is_anonymous") else {"session_id": program.name}
        self.engine.add_request(name, {"prompt_token_ids": list(program.tokens)}, params, **says)
        return name

    def _answered(self, program: Program, output: Any) -> None:
        answer = list(output.outputs[0].token_ids)
        program.tokens += answer
        self.prompt_tokens += len(output.prompt_token_ids)
        self.cached_tokens += output.num_cached_tokens or 0
        self.by_call.append((output.request_id, blake2b(repr(answer).encode()).hexdigest()[:16]))

    def _figures(self) -> dict[str, Any]:
        pool = self.manager.block_pool
        free_list = pool.free_block_queue
        evictions = getattr(free_list, "evictions", 0)
        return {
            "vllm": vllm.__version__,
            "is_by_value": bool(self.retainer and self.retainer.is_on),
            "blocks": pool.num_gpu_blocks,
            "calls": len(self.by_call),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "hit_fraction": self.cached_tokens / self.prompt_tokens,
            "evictions": evictions,
            "us_per_eviction": 1e6 * getattr(free_list, "taken_s", 0.0) / max(1, evictions),
            "free_blocks_at_end": pool.get_num_free_blocks(),
            "answers": dict(self.by_call),
        }


def main(workload: str, model: str) -> None:
    folder = Path(model)
    if not (folder / "config.json").exists():
        write_model(folder)
    print(json.dumps(Replay(json.loads(Path(workload).read_text()), folder).run()))


if __name__ == "__main__":
    main(*sys.argv[1:])
