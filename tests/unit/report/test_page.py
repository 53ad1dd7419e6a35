import re
from html.parser import HTMLParser

import pytest

from scepsy.model.cluster import GpuType, GpuTypeName, regular_cluster
from scepsy.model.execution import Call, CallId, Execution, ExecutionId, ReplicaName
from scepsy.model.plan import (
    Allocation,
    PlacedReplica,
    Placement,
    Plan,
    Prediction,
    ReplicaGroup,
    StagePrediction,
    WorkflowPrediction,
    WorkflowRate,
)
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint
from scepsy.report.comparison import BottleneckComparison, Comparison
from scepsy.report.page import ReportInput, render_report
from scepsy.traces.demand import demand

BEAM, BIG = WorkflowName("beam<search>"), LlmName("big")
STAGE = Stage(BEAM, BIG)


def execution(name: str) -> Execution:
    calls = tuple(
        Call(
            id=CallId(f"{name}-{i}"),
            execution=ExecutionId(name),
            workflow=BEAM,
            llm=BIG,
            start_s=float(i // 2),
            end_s=i // 2 + 0.8,
            prompt_tokens=100,
            output_tokens=10,
        )
        for i in range(4)
    )
    return Execution(ExecutionId(name), BEAM, calls)


def plan() -> Plan:
    cluster = regular_cluster(
        GpuType(name=GpuTypeName("h100"), memory_bytes=80 * 1024**3), nodes=1, gpus_per_node=2
    )
    group = ReplicaGroup(llm=BIG, gpu_type=GpuTypeName("h100"), tensor_parallel=2, gpu_fraction=0.6)
    prediction = WorkflowPrediction(
        workflow=BEAM,
        rate_per_s=1.0,
        execution_s_mean=2.0,
        execution_s_p50=2.0,
        execution_s_p95=3.0,
        execution_s_p99=4.0,
        gap_s_mean=0.2,
        capacity_per_s=2.5,
        capacity_alone_per_s=2.5,
        bottleneck=BIG,
        bottleneck_alone=BIG,
        stages=(
            StagePrediction(
                stage=STAGE,
                utilization=0.4,
                call_s=0.8,
                contribution_s=1.6,
                provenance=Provenance.SIMULATED,
            ),
        ),
    )
    placed = PlacedReplica(ReplicaName("big-0"), BIG, tuple(g.id for g in cluster.gpus), 0.6)
    return Plan(
        cluster=cluster,
        rates=(WorkflowRate(BEAM, 1.0),),
        slo=None,
        allocation=Allocation((group,)),
        placement=Placement((placed,)),
        prediction=Prediction("pipeline", (prediction,)),
    )


def report() -> ReportInput:
    executions = (execution("one"), execution("two"))
    key = ProfileKey(stage=STAGE, gpu_type=GpuTypeName("h100"), tensor_parallel=2, gpu_fraction=0.6)
    points = tuple(
        ProfilePoint(utilization=u, latency_s_mean=1 + u, latency_s_p95=2.0, ttft_s_mean=0.1)
        for u in (0.1, 0.9)
    )
    curve = ProfileCurve(
        key=key,
        capacity_per_s=3.0,
        points=points,
        provenance=Provenance.SIMULATED,
        source="a test's figures",
    )
    compared = Comparison(
        workflow=BEAM,
        condition="at 1/s",
        quantity="mean",
        unit="s",
        predicted=2.0,
        measured=3.0,
        max_error_fraction=0.15,
    )
    return ReportInput(
        title="A report",
        facts=("seed 0",),
        executions=executions,
        demands=(demand(executions),),
        curves=(curve,),
        plans=(plan(),),
        comparisons=(compared,),
        bottlenecks=(BottleneckComparison(workflow=BEAM, predicted="big", measured="big"),),
    )


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        wanted = ("src", "href", "xlink:href")
        self.references += [value or "" for name, value in attrs if name in wanted]


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(report())


def test_the_page_refers_to_nothing_outside_of_itself(page: str) -> None:
    tags = _Tags()
    tags.feed(page)
    assert tags.references, "the page has links to its own sections"
    assert all(reference.startswith("#") for reference in tags.references)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_every_part_is_drawn(page: str) -> None:
    tags = _Tags()
    tags.feed(page)
    assert tags.count["svg"] == 5  # comparison, cluster, timelines, demand, curves
    for title in ("Predicted against measured", "Plans", "Executions", "Demand", "Profiles"):
        assert f">{title}</h2>" in page


def test_names_are_escaped_and_figures_shown(page: str) -> None:
    assert "<search>" not in page
    assert "-33.3%" in page  # predicted 2 against measured 3
    assert "missed" in page
    assert "big-0" in page


def test_the_same_input_gives_the_same_bytes(page: str) -> None:
    assert render_report(report()) == page


def test_empty_parts_are_left_out() -> None:
    page = render_report(ReportInput(title="Empty", facts=()))
    assert "<h2" not in page
    assert "<svg" not in page
