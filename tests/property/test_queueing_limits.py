"""In the limits that queueing theory knows, the simulator gives what theory says.

An engine whose steps take equal time whatever is in them, and that holds c calls, is c servers
with one queue. A call's service is its number of steps: constant, or geometric with a mean of many
steps, which is nearly exponential.
"""

import random
from collections.abc import Iterator
from heapq import heapreplace
from itertools import islice
from math import factorial, log

import pytest

from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import Segment, WorkloadCall
from scepsy.sim.arrivals import Arrival, OpenLoop
from scepsy.sim.fleet import Fleet, ServedGroup, replica_names
from scepsy.sim.run import Simulation, steady
from scepsy.sim.script import Script
from tests.property.made_up_times import EqualSteps

pytestmark = pytest.mark.no_cover
LLM = LlmName("m")
STAGE = Stage(WorkflowName("w"), LLM)
STEP_S = 0.001
MEAN_STEPS = 1000
"""A service of 1 s in the mean."""
CALLS, WARM_UP = 40_000, 4_000
BATCHES = 20


def poisson(rate_per_s: float, *, exponential: bool, seed: int) -> Iterator[Arrival]:
    rng = random.Random(seed)
    at_s = 0.0
    while True:
        at_s += rng.expovariate(rate_per_s)
        steps = MEAN_STEPS
        if exponential:
            steps = 1 + int(log(1 - rng.random()) / log(1 - 1 / MEAN_STEPS))
        call = WorkloadCall(prompt_tokens=1, output_tokens=steps)
        yield Arrival(at_s, Script(Segment((call,)), (STAGE,), 0.0))


def waits_s(rate_per_s: float, *, servers: int, exponential: bool) -> list[float]:
    """From arrival to the first step, by arrival, after a warm-up."""
    spec = EngineSpec(times=EqualSteps(STEP_S), kv_blocks=10**9, max_seqs=servers)
    fleet = Fleet([ServedGroup(LLM, spec, replica_names(LLM, 1))])
    arrivals = poisson(rate_per_s, exponential=exponential, seed=7)
    simulation = Simulation(OpenLoop(arrivals), fleet)
    served = steady(simulation, executions=CALLS, warm_up=WARM_UP)
    return [execution.calls[0].scheduled_s - execution.start_s for execution in served]


def recursion_s(rate_per_s: float, *, servers: int, exponential: bool) -> list[float]:
    """The same waits without an engine: a call starts when the first of the servers is free."""
    free_s = [0.0] * servers
    waits: list[float] = []
    arrivals = poisson(rate_per_s, exponential=exponential, seed=7)
    for arrival in islice(arrivals, WARM_UP + CALLS):
        start_s = max(arrival.at_s, free_s[0])
        steps = arrival.script.segment.calls[0].output_tokens
        heapreplace(free_s, start_s + steps * STEP_S)
        waits.append(start_s - arrival.at_s)
    return waits[WARM_UP:]


def check(found_s: list[float], theory_s: float) -> None:
    """Theory lies within four standard errors, which are those of batch means, and are small."""
    size = len(found_s) // BATCHES
    means = [sum(found_s[at : at + size]) / size for at in range(0, size * BATCHES, size)]
    mean_s = sum(means) / BATCHES
    error_s = (sum((m - mean_s) ** 2 for m in means) / BATCHES / (BATCHES - 1)) ** 0.5
    assert error_s < 0.1 * theory_s
    assert mean_s == pytest.approx(theory_s, abs=4 * error_s)


def erlang_c(load: float, servers: int) -> float:
    """The part of arrivals that wait in M/M/c, at ``load`` Erlangs (A. K. Erlang, 1917)."""
    full = load**servers / factorial(servers) * servers / (servers - load)
    return full / (sum(load**n / factorial(n) for n in range(servers)) + full)


@pytest.mark.parametrize(
    ("load", "servers", "exponential"), [(0.7, 1, True), (0.7, 1, False), (6.4, 8, True)]
)
def test_each_wait_is_that_of_the_queue(load: float, servers: int, exponential: bool) -> None:
    """But for the time to the end of the step under way, for each call in the same busy period."""
    found_s = waits_s(load, servers=servers, exponential=exponential)
    exact_s = recursion_s(load, servers=servers, exponential=exponential)

    ahead = sum(found - exact for found, exact in zip(found_s, exact_s, strict=True)) / CALLS
    assert all(found > exact - 1e-6 for found, exact in zip(found_s, exact_s, strict=True))
    assert -1e-9 < ahead < 5 * STEP_S


@pytest.mark.parametrize("utilization", [0.3, 0.7])
def test_one_server_with_exponential_service_is_m_m_1(utilization: float) -> None:
    found_s = waits_s(utilization, servers=1, exponential=True)

    check(found_s, utilization / (1 - utilization))


@pytest.mark.parametrize("servers", [2, 4])
def test_one_queue_before_several_servers_is_m_m_c(servers: int) -> None:
    load = 0.6 * servers
    found_s = waits_s(load, servers=servers, exponential=True)

    check(found_s, erlang_c(load, servers) / (servers - load))


@pytest.mark.parametrize("utilization", [0.3, 0.7])
def test_one_server_with_constant_service_is_m_d_1(utilization: float) -> None:
    """Half of the wait of M/M/1 (Pollaczek-Khinchine)."""
    found_s = waits_s(utilization, servers=1, exponential=False)

    check(found_s, utilization / (1 - utilization) / 2)
