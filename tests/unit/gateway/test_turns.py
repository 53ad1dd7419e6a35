import pytest

from scepsy.errors import InputError, MissingError, UnknownNameError
from scepsy.gateway.answer import Answer, Usage
from scepsy.gateway.exchange import Exchange
from scepsy.gateway.identify import Identity, Rung
from scepsy.gateway.pool import Replica, Replicas
from scepsy.gateway.turns import (
    TurnPool,
    Turns,
    planned_hardware,
    planned_replicas,
    planned_turns,
)
from scepsy.model.cluster import regular_cluster
from scepsy.model.execution import BLOCK_TOKENS, CallStatus, Endpoint
from scepsy.model.plan import Allocation, Plan, Prediction, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.place.pack import pack
from scepsy.policy.route import LeastLoaded, PrefixAware
from scepsy.policy.turns import StepCost
from scepsy.profiles.catalog import find_gpu_type
from scepsy.sim.fleet import Fleet
from scepsy.sim.plan_run import replica_groups
from scepsy.sim.program_fleet import capacity_of
from scepsy.sim.specs import offloading, published
from scepsy.units import GIB
from tests.property.made_up_times import DyadicTimes

A, B, ALONE = LlmName("a"), LlmName("b"), LlmName("c")
COST = StepCost(DyadicTimes(), most_calls=256, prompt_token_s=1e-4)
TURNS = Turns((("a-0", "b-0"), ("a-1", "b-1")), {A: COST, B: COST})
REPLICAS = tuple(
    Replica(f"{llm}-{number}", llm, f"http://{llm}{number}")
    for llm in (A, B, ALONE)
    for number in range(2)
)


@pytest.fixture
def replicas():
    return Replicas(REPLICAS)


@pytest.fixture
def pool(replicas):
    return TurnPool(replicas, LeastLoaded, lambda: 0.0, TURNS)


def exchange(llm=A, prompt=b"x" * 4000):
    return Exchange(
        id="c",
        identity=Identity("w", "e", "r", Rung.HEADER),
        llm=llm,
        endpoint=Endpoint.CHAT,
        start_s=1.0,
        prompt=prompt,
        request=b"{}",
    )


async def picked(pool, llm):
    async with pool.place(exchange(llm), without=frozenset()) as replica:
        return replica.name


def waiting(pool):
    return {name: pool._group.prompt_tokens(name) for name in ("a-0", "a-1", "b-0", "b-1")}


async def test_a_call_goes_to_where_nobody_else_has_work(pool):
    assert await picked(pool, B) == "b-0"
    async with pool.place(exchange(A), without=frozenset()) as replica:
        assert replica.name == "a-0"
        assert await picked(pool, B) == "b-1"
        assert await picked(pool, ALONE) == "c-0"
    assert await picked(pool, B) == "b-0"


async def test_a_prompt_waits_until_the_first_token_or_the_end(pool):
    streamed, whole = exchange(), exchange()
    async with pool.place(streamed, without=frozenset()):
        async with pool.place(whole, without={"a-1"}):
            assert waiting(pool) == {"a-0": 2000, "a-1": 0, "b-0": 0, "b-1": 0}
            streamed.first_token(2.0)
            streamed.first_token(3.0)
            assert waiting(pool)["a-0"] == 1000
        assert waiting(pool)["a-0"] == 0
    assert waiting(pool)["a-0"] == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
async def test_nothing_waits_any_more_however_a_call_ends(pool, replicas, error):
    with pytest.raises(error):
        async with pool.place(exchange(), without=frozenset()):
            raise error

    assert waiting(pool)["a-0"] == 0
    assert replicas.by_llm[A].inflight("a-0").calls == 0


async def test_answers_that_came_count_for_how_long_they_are(pool, replicas):
    for status, tokens in ((CallStatus.OK, 30), (CallStatus.ERROR, 1), (CallStatus.OK, 50)):
        call = exchange()
        async with pool.place(call, without=frozenset()):
            call.status, call.answer = status, Answer(usage=Usage(output_tokens=tokens))

    assert replicas.by_llm[A].answer_tokens == 40
    assert replicas.by_llm[B].answer_tokens == 0


async def test_what_is_cached_counts_where_the_plans_policy_looks_at_it():
    pool = TurnPool(Replicas(REPLICAS), PrefixAware, lambda: 0.0, TURNS)
    async with pool.place(exchange(), without={"a-0"}) as replica:
        assert replica.name == "a-1"
    assert await picked(pool, A) == "a-1"


def a_plan(*llms, turns=True):
    h100 = find_gpu_type("h100")
    groups = tuple(
        ReplicaGroup(llm=llm, gpu_type=h100.name, tensor_parallel=1, replicas=2, gpu_fraction=0.4)
        for llm in llms
    )
    allocation = Allocation(groups, turns=(llms,) if turns else ())
    cluster = regular_cluster(h100, nodes=1, gpus_per_node=2)
    return Plan(
        cluster=cluster,
        rates=(),
        slo=None,
        allocation=allocation,
        placement=pack(allocation, cluster),
        prediction=Prediction("nobody", ()),
    )


QWENS = (LlmName("qwen3-0.6b"), LlmName("qwen3-8b"))


def test_a_plan_says_who_takes_turns_and_the_simulators_costs():
    plan = a_plan(*QWENS)
    turns = planned_turns(plan)
    together = [tuple(replica.name for replica in each) for each in plan.together]
    fleet = Fleet(replica_groups(plan, published), turns=together)

    assert set(map(frozenset, turns.together)) == {
        frozenset(("qwen3-0.6b-0", "qwen3-8b-0")),
        frozenset(("qwen3-0.6b-1", "qwen3-8b-1")),
    }
    assert turns.costs == fleet._turn_group.costs
    assert planned_turns(a_plan(*QWENS, turns=False)) is None


@pytest.mark.parametrize("turns", [False, True])
def test_a_plan_says_what_its_replicas_should_do(turns):
    plan = a_plan(*QWENS, turns=turns)

    assert {llm: each.capacity for llm, each in planned_hardware(plan).items()} == {
        group.llm: capacity_of(group.spec) for group in replica_groups(plan, published)
    }


@pytest.mark.parametrize("turns", [False, True])
def test_host_memory_holds_as_much_for_the_gateway_as_in_the_simulator(turns):
    plan = a_plan(*QWENS, turns=turns)

    told = {llm: h.offloading(h.capacity, GIB) for llm, h in planned_hardware(plan).items()}

    for group in replica_groups(plan, offloading(published, dict.fromkeys(QWENS, GIB))):
        simulated = capacity_of(group.spec)
        found = told[group.llm]
        assert found.host_tokens == pytest.approx(simulated.host_tokens, abs=BLOCK_TOKENS)
        assert found.host_token_s == pytest.approx(simulated.host_token_s, rel=0.1)


def test_of_llms_of_which_nothing_is_published_a_plan_says_nothing():
    plan = a_plan(B, QWENS[0], turns=False)

    assert set(planned_hardware(plan)) == {QWENS[0]}


def test_llms_of_which_nothing_is_known_cannot_be_routed_by_turns():
    with pytest.raises((MissingError, UnknownNameError)):
        planned_turns(a_plan(A, B))


def test_replicas_of_a_plan_are_given_by_name():
    urls = [f"{name}=http://h{at}/v1" for at, name in enumerate(("b-1", "a-0", "b-0", "a-1"))]

    assert planned_replicas(a_plan(A, B), urls) == (
        Replica("a-0", A, "http://h1"),
        Replica("a-1", A, "http://h3"),
        Replica("b-0", B, "http://h2"),
        Replica("b-1", B, "http://h0"),
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a-0=http://h"], "server is not given: a-1, b-0, b-1"),
        (["a-7=http://h"], "unknown replica of the plan `a-7`"),
        (["a-0"], "`a-0` is not a replica"),
        (["a-0=http://h", "a-0=http://i"], "`a-0` is given twice"),
        (["a-0=h"], "is not an http URL"),
    ],
)
def test_bad_replicas_of_a_plan_are_input_errors(texts, message):
    with pytest.raises(InputError, match=message):
        planned_replicas(a_plan(A, B), texts)
