"""Fitted to a made-up world: unmeasured groups are predicted, and far ones are refused."""

from dataclasses import replace

import numpy as np
import pytest

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.provenance import Provenance
from scepsy.profiles.silicon_fit.closed_loop import work_of
from scepsy.profiles.silicon_fit.configuration import Configuration, Precision
from scepsy.profiles.silicon_fit.fit import Abstained, Predicted, SiliconModel, fit
from tests.unit.profiles.silicon_fit.made_up import LOOP, measured

LEFT_OUT = ("llama-3.1-70b", "h100", 4)
ROWS = measured()
BASE = ROWS[0].configuration


@pytest.fixture(scope="module")
def model() -> SiliconModel:
    return fit([m for m in ROWS if m.configuration.group != LEFT_OUT])


def predicted(model: SiliconModel, configuration: Configuration) -> Predicted:
    answer = model.predict(configuration)
    assert isinstance(answer, Predicted)
    return answer


def test_a_group_that_was_left_out_is_predicted_within_its_bars(model: SiliconModel) -> None:
    unseen = [m for m in ROWS if m.configuration.group == LEFT_OUT]
    answers = [predicted(model, m.configuration) for m in unseen]

    tpot = [a.tpot_s.value / m.tpot_s - 1 for a, m in zip(answers, unseen, strict=True)]
    ttft = [a.ttft_s.value / m.ttft_s - 1 for a, m in zip(answers, unseen, strict=True)]
    assert np.median(np.abs(tpot)) < 0.05
    assert np.median(np.abs(ttft)) < 0.05
    covered = [a.latency_s.covers(m.latency_s) for a, m in zip(answers, unseen, strict=True)]
    assert np.mean(covered) >= 0.75


def test_quantities_agree_with_each_other(model: SiliconModel) -> None:
    answer = predicted(model, BASE)

    latency_s = answer.ttft_s.value + (BASE.output_tokens - 1) * answer.tpot_s.value
    assert answer.latency_s.value == pytest.approx(latency_s)
    assert answer.calls_per_s.value == pytest.approx(BASE.concurrency / latency_s)
    for estimate in (answer.ttft_s, answer.tpot_s, answer.latency_s, answer.calls_per_s):
        assert 0 < estimate.low < estimate.value < estimate.high


def test_the_engine_makes_the_difference_that_was_measured(model: SiliconModel) -> None:
    here = replace(BASE, llm=LEFT_OUT[0], gpu_type=LEFT_OUT[1], gpus=LEFT_OUT[2], concurrency=8)
    vllm = predicted(model, replace(here, engine="vllm"))
    sglang = predicted(model, replace(here, engine="sglang"))

    assert sglang.tpot_s.value / vllm.tpot_s.value == pytest.approx(1.2, rel=0.06)


def test_bars_widen_away_from_what_was_measured(model: SiliconModel) -> None:
    near = predicted(model, BASE).tpot_s
    far = predicted(model, replace(BASE, engine_version="9.0", attention_copies=1, gpus=16)).tpot_s

    assert far.high / far.low > 1.2 * near.high / near.low


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"engine": "tgi"}, "engine tgi"),
        ({"gpu_type": "h200"}, "GPU type h200"),
        ({"llm": "glm-5"}, "LLM glm-5"),
        ({"concurrency": 129}, "129 calls in flight"),
        ({"input_tokens": 511}, "511 input tokens"),
        ({"output_tokens": 1025}, "1025 output tokens"),
        ({"gpus": 17}, "17 GPUs"),
    ],
)
def test_too_far_is_refused_and_says_what_to_measure(
    model: SiliconModel, change: dict[str, object], named: str
) -> None:
    answer = model.predict(replace(BASE, **change))  # type: ignore[arg-type]

    assert isinstance(answer, Abstained)
    assert named in answer.missing


def test_beyond_what_was_measured_the_physics_goes_on() -> None:
    from_eight = [m for m in ROWS if m.configuration.concurrency >= 8]
    one_call = replace(BASE, gpus=2, engine="sglang", concurrency=4)
    answer = predicted(fit(from_eight), one_call)

    physics = LOOP.tpot_s(work_of([one_call]))[0]
    assert answer.tpot_s.value == pytest.approx(1.2 * physics, rel=0.08)
    assert answer.provenance is Provenance.EXTRAPOLATED


def test_where_a_number_comes_from(model: SiliconModel) -> None:
    assert predicted(model, BASE).provenance is Provenance.INTERPOLATED
    beyond = replace(BASE, concurrency=128)
    assert predicted(model, beyond).provenance is Provenance.EXTRAPOLATED
    alone = [m for m in ROWS if m.configuration.group[:2] != ("llama-3.1-70b", "h100")]
    answer = predicted(fit(alone), replace(BASE, llm="llama-3.1-70b"))
    assert answer.provenance is Provenance.ASSUMED
    assert answer.nearest.llm == "llama-3.1-70b"


def test_unknown_names_and_too_few_measurements_are_errors(model: SiliconModel) -> None:
    with pytest.raises(UnknownNameError):
        model.predict(replace(BASE, llm="gpt-2"))
    with pytest.raises(UnknownNameError):
        model.predict(replace(BASE, gpu_type="v100"))
    with pytest.raises(InputError, match="19 measurements"):
        fit(ROWS[:19])


def test_a_precision_never_measured_is_predicted_with_a_wider_bar(model: SiliconModel) -> None:
    fp8, bf16 = (
        predicted(model, replace(BASE, precision=p)) for p in (BASE.precision, Precision.BF16)
    )

    assert bf16.tpot_s.high / bf16.tpot_s.low > fp8.tpot_s.high / fp8.tpot_s.low
