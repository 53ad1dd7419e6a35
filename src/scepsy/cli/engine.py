"""``scepsy engine``: serve one LLM as a GPU would, without one; or a real one on the CPU."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scepsy.cli.host_memory import parse_gib
from scepsy.cli.output import JsonOption, print_json_line, say
from scepsy.cli.serving import run_server, stop_asked
from scepsy.errors import InputError

if TYPE_CHECKING:
    from scepsy.engines.emulated import EngineServerConfig

ScriptOption = Annotated[
    list[Path] | None,
    typer.Option(help="Python file that decides what is answered. Repeat it for several."),
]
NameOption = Annotated[
    str, typer.Option(help="What clients put into `model`, if not the LLM's name.")
]
BesideOption = Annotated[
    list[str] | None,
    typer.Option(
        help="An LLM that takes turns with it on the first of its GPUs, as LLM=TP@PART: its TP "
        "degree, and its part of their memory; +256 says that it offloads KV to 256 GiB of host "
        "memory. Repeat it for several. Each has a port of its own, "
        "the next ones; --gpu-fraction, too, is then of the memory alone.",
        metavar="LLM=TP@PART[+GIB]",
    ),
]
RealOption = Annotated[
    Path | None,
    typer.Option(help="Emulate nothing: serve this GGUF file with llama.cpp, on the CPU."),
]


def engine(
    *,
    model: Annotated[str, typer.Option(help="The LLM to emulate, e.g. llama-3.1-8b.")] = "",
    gpu: Annotated[str, typer.Option(help="The GPU type, e.g. h100.")] = "h100",
    tp: Annotated[int, typer.Option(min=1, help="GPUs that the weights are sharded over.")] = 1,
    gpu_fraction: Annotated[float, typer.Option(help="Part of each GPU, in (0, 1].")] = 1.0,
    host_gib: Annotated[
        str | None,
        typer.Option(help="Host memory that KV is offloaded to, over all GPUs.", metavar="GIB"),
    ] = None,
    speedup: Annotated[float, typer.Option(help="How much faster than the GPU to run.")] = 1.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    beside: BesideOption = None,
    script: ScriptOption = None,
    served_model_name: NameOption = "",
    seed: Annotated[int, typer.Option(help="Another seed gives other answers.")] = 0,
    real: RealOption = None,
    slots: Annotated[int, typer.Option(help="With --real: calls in the batch at most.")] = 4,
    context: Annotated[int, typer.Option(help="With --real: tokens of a call at most.")] = 4096,
    threads: Annotated[int, typer.Option(help="With --real: threads; 1 on busy cores.")] = 1,
    batch_tokens: Annotated[int, typer.Option(help="With --real: computed at once.")] = 512,
    embeddings: Annotated[bool, typer.Option(help="With --real: serve embeddings too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve an LLM over the OpenAI API, with the timing that a real GPU would have.

    Runs until it is interrupted. Answers are made up, unless a script knows better; when they come
    is taken from measurements of the real GPU.

    Example:
        scepsy engine --model llama-3.1-8b --gpu h100 --tp 2 --gpu-fraction 0.5 --speedup 10
    """
    if real is not None:
        from scepsy.engines.llama_cpp import LlamaConfig, serve_llama

        llama = LlamaConfig(
            model=real, name=served_model_name or model, host=host, port=port, slots=slots,
            context_tokens=context, threads=threads, batch_tokens=batch_tokens,
            embeddings=embeddings,
        )  # fmt: skip
        serve_llama(llama, lambda url: _announce([(url, llama.served_name)], as_json=as_json))
        return
    if not model:
        raise InputError("no LLM is named", hint="give --model, or --real FILE.gguf")

    from scepsy.engines.emulated import EngineServerConfig

    host_bytes = parse_gib(f"--host-gib {host_gib}", host_gib) if host_gib is not None else 0.0
    config = EngineServerConfig(
        llm=model, gpu_type=gpu, tensor_parallel=tp, gpu_fraction=gpu_fraction,
        host_bytes=host_bytes, speedup=speedup, host=host, port=port,
        scripts=tuple(script or ()), name=served_model_name, seed=seed,
    )  # fmt: skip
    run_server(_serve([config, *_beside(config, beside or [])], as_json=as_json))


def _beside(config: "EngineServerConfig", texts: Sequence[str]) -> "list[EngineServerConfig]":
    """Raises ``InputError`` where a text says no LLM and no share."""
    found = []
    for number, text in enumerate(texts, 1):
        llm, _, share = text.rpartition("=")
        share, plus, gib = share.partition("+")
        degree, _, part = share.partition("@")
        try:
            tensor_parallel, fraction = int(degree), float(part)
        except ValueError:
            llm = ""
        if not llm:
            raise InputError(
                f"`--beside {text}` says no LLM, TP degree and part of the memory",
                hint="write it like `--beside qwen3-8b=1@0.3`",
            )
        port = config.port + number if config.port else 0
        found.append(
            replace(
                config, llm=llm, tensor_parallel=tensor_parallel, gpu_fraction=fraction,
                host_bytes=parse_gib(f"--beside {text}", gib) if plus else 0.0,
                name="", port=port,
            )
        )  # fmt: skip
    return found


async def _serve(configs: "Sequence[EngineServerConfig]", *, as_json: bool) -> None:
    from scepsy.engines.emulated import start_engines

    stopped = stop_asked()
    async with AsyncExitStack() as stack:
        running = await start_engines(configs)
        for each in running:
            stack.push_async_callback(each.stop)
        served = [(e.url, c.served_name) for e, c in zip(running, configs, strict=True)]
        _announce(served, as_json=as_json)
        await stopped.wait()


def _announce(served: Sequence[tuple[str, str]], *, as_json: bool) -> None:
    if not as_json:
        for url, name in served:
            say(f"listening on {url}/v1 as {name}; stop with Ctrl-C")
        return
    (url, name), *others = served
    more = {"beside": [{"url": url, "model": name} for url, name in others]} if others else {}
    print_json_line({"url": url, "model": name, **more})
