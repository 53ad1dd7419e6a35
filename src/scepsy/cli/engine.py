"""``scepsy engine``: one replica on this machine, emulated or real."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scepsy.cli.output import JsonOption, print_json_line, say
from scepsy.errors import InputError

if TYPE_CHECKING:
    from scepsy.engines.emulated import EngineServerConfig


def engine(
    model: Annotated[
        str, typer.Option(help="LLM to emulate, e.g. qwen3-32b; with --real its name in the API.")
    ] = "",
    gpu: Annotated[str, typer.Option(help="GPU type whose timing is emulated.")] = "h100",
    tp: Annotated[int, typer.Option(help="Tensor parallel degree.")] = 1,
    gpu_fraction: Annotated[
        float, typer.Option(help="Part of each GPU that the replica may use, in (0, 1].")
    ] = 1.0,
    speedup: Annotated[float, typer.Option(help="Times faster than the GPU it stands for.")] = 1.0,
    script: Annotated[
        list[Path] | None,
        typer.Option(help="Python file that decides what is answered; repeatable."),
    ] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="Name in the API, if not that of --model.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of answers that no script decides.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0,
    real: Annotated[
        Path | None,
        typer.Option(help="Serve this GGUF file on the CPU with llama.cpp, instead of emulating."),
    ] = None,
    slots: Annotated[int, typer.Option(help="With --real: calls in the batch at most.")] = 4,
    context: Annotated[int, typer.Option(help="With --real: tokens of one call at most.")] = 4096,
    threads: Annotated[int, typer.Option(help="With --real: CPU threads.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Serve one LLM: with the timing of a GPU that is not there, or for real on the CPU.

    The emulated engine batches, caches prefixes and queues as vLLM does, and takes the time that
    the GPU would. What it answers is made up, or comes from scripts.

    **Example:**

        scepsy engine --model llama-3.1-8b --gpu h100 --tp 2 --gpu-fraction 0.5 --speedup 10
    """
    import asyncio

    if real is not None:
        from scepsy.engines.llama_cpp import LlamaConfig, serve_llama

        llama = LlamaConfig(
            model=real, name=served_model_name or model, host=host, port=port,
            slots=slots, context_tokens=context, threads=threads,
        )  # fmt: skip
        serve_llama(llama, lambda url: _announce(url, llama.served_name, as_json=as_json))
        return
    if not model:
        raise InputError(
            "no LLM to emulate", hint="give --model, or --real FILE.gguf for a real engine"
        )
    from scepsy.engines.emulated import EngineServerConfig

    config = EngineServerConfig(
        llm=model, gpu_type=gpu, tensor_parallel=tp, gpu_fraction=gpu_fraction, speedup=speedup,
        served_name=served_model_name, host=host, port=port, scripts=tuple(script or ()), seed=seed,
    )  # fmt: skip
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, as_json=as_json))


async def _serve(config: "EngineServerConfig", *, as_json: bool) -> None:
    import asyncio
    import signal

    from scepsy.engines.emulated import start_engine

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    running = await start_engine(config)
    _announce(running.url, config.name, as_json=as_json)
    await stopped.wait()
    await running.stop()


def _announce(url: str, model: str, *, as_json: bool) -> None:
    if as_json:
        print_json_line({"url": url, "model": model})
    else:
        say(f"{model} is listening on {url}/v1; stop with Ctrl-C")
