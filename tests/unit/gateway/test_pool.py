import pytest

from scepsy.errors import InputError
from scepsy.gateway.pool import AVOID_S, ReplicaPool, Replicas, parse_replicas
from scepsy.policy.replicas import NoReplicaLeft
from scepsy.policy.route import CallView, LeastLoaded

CALL = CallView(execution="e", workflow="w", role="", prompt_tokens=10)


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def replicas():
    return Replicas(parse_replicas(["m=http://a", "m=http://b"]))


@pytest.fixture
def pool(replicas, clock):
    return ReplicaPool(replicas, LeastLoaded, clock)


def inflight(replicas):
    among = replicas.by_llm["m"]
    found = [among.inflight(name) for name in among.names]
    return [(each.calls, each.tokens) for each in found]


def test_replicas_are_named_by_llm_and_number():
    replicas = parse_replicas(["m=http://a/v1", "n=http://a", "m=http://b"])

    assert [(r.name, r.llm, r.url) for r in replicas] == [
        ("m-0", "m", "http://a"),
        ("n-0", "n", "http://a"),
        ("m-1", "m", "http://b"),
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no replica is given"),
        (["http://a"], "is not a replica"),
        (["=http://a"], "is not a replica"),
        (["m=a"], "is not an http URL"),
        (["m=http://a", "m=http://a/v1"], "is given twice"),
    ],
)
def test_bad_replicas_are_input_errors(texts, message):
    with pytest.raises(InputError, match=message):
        parse_replicas(texts)


def test_replicas_are_there_by_name_and_by_llm():
    replicas = Replicas(parse_replicas(["m=http://a", "n=http://a", "m=http://b"]))

    assert [replica.name for replica in replicas] == ["m-0", "n-0", "m-1"]
    assert replicas["m-1"].url == "http://b"
    assert set(replicas.llms) == {"m", "n"}
    assert list(replicas.by_llm["m"].names) == ["m-0", "m-1"]


def test_a_lease_counts_while_it_is_held(pool, replicas):
    with pool.lease("m", CALL) as first:
        with pool.lease("m", CALL) as second:
            assert (first.name, second.name) == ("m-0", "m-1")
            assert inflight(replicas) == [(1, 10), (1, 10)]
        assert inflight(replicas) == [(1, 10), (0, 0)]
    assert inflight(replicas) == [(0, 0), (0, 0)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_lease_is_given_back_however_it_ends(pool, replicas, error):
    with pytest.raises(error), pool.lease("m", CALL):
        raise error

    assert inflight(replicas) == [(0, 0), (0, 0)]


def test_replicas_can_be_left_out_until_none_is_left(pool):
    with pool.lease("m", CALL, without={"m-0"}) as replica:
        assert replica.name == "m-1"
    with pytest.raises(NoReplicaLeft), pool.lease("m", CALL, without={"m-0", "m-1"}):
        pass


def test_an_unreachable_replica_is_passed_over_for_a_while(pool, clock):
    with pool.lease("m", CALL) as replica:
        pool.avoid(replica)

    def picked():
        with pool.lease("m", CALL) as replica:
            return replica.name

    assert picked() == "m-1"
    clock.now_s = AVOID_S
    assert picked() == "m-0"


def test_where_all_are_unreachable_one_is_tried_all_the_same(pool):
    for _ in range(2):
        with pool.lease("m", CALL) as replica:
            pool.avoid(replica)

    with pool.lease("m", CALL) as replica:
        assert replica.name == "m-0"
