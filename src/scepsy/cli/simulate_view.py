"""Simulated executions for the eye: beside what was predicted, and variants side by side."""

from collections.abc import Iterator, Mapping

from scepsy.cli.output import out, print_table
from scepsy.model.plan import Plan
from scepsy.sim.summary import Summary
from scepsy.units import format_duration

_NOTHING = "-"
_LLM_HEADER = (
    *("LLM", "", "calls", "mean", "p99", "TTFT", "TTFT p99", "wait", "cached"),
    *("preempted", "restarted"),
)


def print_comparison(plan: Plan, summaries: Mapping[str, Summary]) -> None:
    """Print workflows, then LLMs; a row for the prediction and one for each variant."""
    header = ("workflow", "", "rate", "ends", "mean", "p50", "p95", "p99", "in SLO", "goodput")
    print_table("Executions", header, _workflow_rows(plan, summaries))
    out.print()
    print_table("Calls, simulated", _LLM_HEADER, _llm_rows(summaries))


def _workflow_rows(plan: Plan, summaries: Mapping[str, Summary]) -> Iterator[tuple[str, ...]]:
    for predicted in plan.prediction.workflows:
        yield (
            predicted.workflow,
            f"predicted ({plan.prediction.predictor})",
            _rate(predicted.rate_per_s),
            _NOTHING,
            format_duration(predicted.execution_s_mean),
            format_duration(predicted.execution_s_p50),
            format_duration(predicted.execution_s_p95),
            format_duration(predicted.execution_s_p99),
            _NOTHING,
            _NOTHING,
        )
        for name, summary in summaries.items():
            for each in summary.workflows:
                if each.workflow == predicted.workflow:
                    yield (
                        "",
                        f"simulated: {name}",
                        _rate(each.offered_per_s),
                        _rate(each.throughput_per_s),
                        format_duration(each.execution.mean_s),
                        format_duration(each.execution.p50_s),
                        format_duration(each.execution.p95_s),
                        format_duration(each.execution.p99_s),
                        _NOTHING if each.attainment is None else f"{each.attainment:.1%}",
                        _NOTHING if each.goodput_per_s is None else _rate(each.goodput_per_s),
                    )


def _llm_rows(summaries: Mapping[str, Summary]) -> Iterator[tuple[str, ...]]:
    names = sorted({each.llm for summary in summaries.values() for each in summary.llms})
    for llm in names:
        label = str(llm)
        for name, summary in summaries.items():
            for each in summary.llms:
                if each.llm == llm:
                    yield (
                        label,
                        name,
                        str(each.calls),
                        format_duration(each.e2e.mean_s),
                        format_duration(each.e2e.p99_s),
                        format_duration(each.ttft.mean_s),
                        format_duration(each.ttft.p99_s),
                        format_duration(each.wait_s_mean),
                        f"{each.prefix_hit_fraction:.0%}",
                        str(each.preemptions),
                        str(each.restarts),
                    )
                    label = ""


def _rate(per_s: float) -> str:
    return f"{per_s:.3g}/s"
