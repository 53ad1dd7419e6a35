import pytest

from scepsy.errors import InputError, UnknownNameError
from scepsy.gateway.app import GatewayConfig, is_loopback, start_gateway
from scepsy.gateway.pool import parse_replicas

REPLICAS = parse_replicas(["m=http://127.0.0.1:9"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replicas": ()}, "at least one replica"),
        ({"port": -1}, "port -1 is not in"),
        ({"port": 65536}, "port 65536 is not in"),
        ({"max_body_bytes": 0}, "max_body_bytes 0 must be >= 1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        GatewayConfig(**{"replicas": REPLICAS, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speedup": 0.0}, "speedup 0.0 must be > 0"),
        ({"record_content": True}, "content can be recorded only where calls are"),
        ({"host": "203.0.113.1", "port": 0}, "cannot listen on 203.0.113.1:0"),
    ],
)
async def test_a_gateway_that_cannot_start_says_why(settings, message):
    with pytest.raises(InputError, match=message):
        await start_gateway(GatewayConfig(replicas=REPLICAS, **settings))


async def test_an_unknown_policy_is_told_with_those_there_are():
    with pytest.raises(UnknownNameError, match="unknown routing policy `fair`"):
        await start_gateway(GatewayConfig(replicas=REPLICAS, policy="fair"))


def test_programs_are_forgotten_when_they_have_been_idle_for_as_long_as_is_said():
    make = GatewayConfig(replicas=REPLICAS, policy="programs", execution_idle_s=7.0).dispatcher()

    assert make().programs.limits.gap_s == 7.0


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("h", False)],
)
def test_only_this_machine_reaches_a_loopback_address(host, expected):
    assert is_loopback(host) is expected


async def test_stopping_twice_is_stopping_once():
    gateway = await start_gateway(GatewayConfig(replicas=REPLICAS, port=0))

    await gateway.flush()
    await gateway.stop()
    await gateway.stop()

    assert gateway.url.startswith("http://127.0.0.1:")
