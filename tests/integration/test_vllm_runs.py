"""The engine model against real runs of vLLM, and the benchmark that says how good it is."""

import json
import os
import shutil
from pathlib import Path

import pytest

from benchmarks.vllm_runs import (
    TARGETS,
    Balancer,
    Independent,
    compare,
    engine_of,
    load_run,
    main,
)
from scepsy.errors import InputError
from scepsy.sim.engine_call import EngineCall
from tests.unit.profiles.made_up_operators import LLM, write_profile

DATA = Path(os.environ.get("SCEPSY_DATA", Path(__file__).parents[3] / "shared" / "data"))
PUBLISHED = DATA / "llmservingsim"


@pytest.mark.skipif(
    not PUBLISHED.exists(), reason=f"no {PUBLISHED}; set SCEPSY_DATA to the folder of public data"
)
@pytest.mark.parametrize("name", ["Llama-3.1-8B", "Qwen3-30B-A3B-Instruct-2507"])
def test_a_real_run_is_foretold(name: str) -> None:
    found = compare(PUBLISHED / "bench" / "examples" / "RTXPRO6000" / name, PUBLISHED)

    for metric in ("ttft", "latency"):
        for statistic, limit in TARGETS.items():
            assert abs(found["errors"][metric][statistic]) <= limit, (metric, statistic)
    assert abs(found["errors"]["tpot"]["mean"]) <= 0.02
    assert set(found["llmservingsim"]) == {"ttft", "tpot", "latency"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A run that took as long as no engine does, and the profile of its GPU."""
    write_profile(tmp_path / "profiler" / "perf" / "RTX4090" / LLM / "bf16")
    run = tmp_path / "bench" / "examples" / "RTX4090" / "a-run"
    (run / "vllm").mkdir(parents=True)
    engine = {
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
        "enable_expert_parallel": False,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 512,
    }
    meta = {"model": LLM, "engine_kwargs": engine}
    (run / "vllm" / "meta.json").write_text(json.dumps(meta))
    instance = {"hardware": "RTX4090", "npu_mem": {"mem_size": 24, "mem_util": 0.9}}
    config = {"link_bw": 16, "link_latency": 20_000, "nodes": [{"instances": [instance]}]}
    (run / "config.json").write_text(json.dumps(config))
    rows = [
        {
            "input_toks": 100 + 10 * index,
            "output_toks": 50,
            "arrival_time": 1e9 + 0.1 * index,
            "queued_ts": 0.1 * index + (0.02 if index else 0.0),
            "first_token_ts": 0.1 * index + 1,
            "last_token_ts": 0.1 * index + 2,
        }
        for index in range(20)
    ]
    (run / "vllm" / "requests.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_any_run_in_the_folder_is_compared(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["vllm_runs", "--data", str(data)])

    main()

    shown = capsys.readouterr()
    line = json.loads(shown.out)
    assert [run["run"] for run in line["runs"]] == ["RTX4090/a-run"]
    assert line["meets_targets"] is False
    assert line["runs"][0]["measured_mean_s"]["ttft"] == pytest.approx(0.981)
    assert line["runs"][0]["measured_mean_s"]["ttft_from_arrival"] == pytest.approx(1.0)
    assert line["runs"][0]["llmservingsim"] == {}
    assert "| RTX4090/a-run | latency |" in shown.err


def test_what_vllm_resolved_comes_before_what_is_guessed(data: Path) -> None:
    run = data / "bench" / "examples" / "RTX4090" / "a-run"
    guessed = engine_of(load_run(run), data).kv_blocks
    path = run / "vllm" / "meta.json"
    meta = json.loads(path.read_text())
    meta["kv_cache"] = {"num_gpu_blocks": 500, "block_size": 32, "gpu_memory_utilization": 0.8}
    meta["hardware"] = {"device_total_memory_bytes": 25_000_000_000}
    path.write_text(json.dumps(meta))

    resolved = load_run(run)

    assert 2000 < guessed < 3500
    assert engine_of(resolved, data).kv_blocks == 1000
    assert (resolved.room.memory_bytes, resolved.room.utilization) == (25e9, 0.8)


@pytest.mark.parametrize("name", ["config.json", "vllm/meta.json", "vllm/requests.jsonl"])
def test_a_run_that_can_t_be_read_is_named(data: Path, name: str) -> None:
    run = data / "bench" / "examples" / "RTX4090" / "a-run"
    (run / name).write_text("{}")

    with pytest.raises(InputError, match="cannot read"):
        compare(run, data)


def test_without_runs_the_benchmark_says_what_to_do(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(data / "bench")
    monkeypatch.setattr("sys.argv", ["vllm_runs", "--data", str(data)])

    with pytest.raises(SystemExit, match="no runs under"):
        main()


def test_calls_go_to_the_copy_that_has_fewest_as_last_told(data: Path) -> None:
    spec = engine_of(load_run(data / "bench" / "examples" / "RTX4090" / "a-run"), data)
    served = Independent(spec, 2)
    balancer = Balancer(served)

    def send(now_s: float, index: int) -> int:
        served.advance(now_s)
        copy = balancer.choose(now_s)
        call = EngineCall(id=str(index), prompt_tokens=10, output_tokens=400)
        served.submit(now_s, copy, call)
        return copy

    assert [send(0.0, index) for index in range(3)] == [0, 1, 0]
    assert send(0.11, 3) == 1  # told of: two and one
