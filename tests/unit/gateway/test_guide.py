"""The guide names everything that a user can meet."""

import re
from inspect import signature
from pathlib import Path

import pytest

from scepsy.cli.gateway import gateway
from scepsy.gateway.door import DoorLimits
from scepsy.gateway.door_metrics import DoorMetrics
from scepsy.gateway.hints import FIELDS
from scepsy.gateway.identify import Rung
from scepsy.gateway.metrics import GatewayMetrics
from scepsy.gateway.openai import ENDPOINTS
from scepsy.gateway.pool import Replicas, parse_replicas
from scepsy.model.execution import CallStatus
from scepsy.policy.dispatch_settings import Settings

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs/guides/gateway.md").read_text()


def metrics():
    made = GatewayMetrics(Replicas(parse_replicas(["m=http://a"])))
    DoorMetrics(made.registry)
    page = made.page().decode()
    return [name for name in re.findall(r"^# TYPE (\S+)", page, re.M) if "_created" not in name]


@pytest.mark.parametrize(
    "name",
    [
        *metrics(),
        *Rung,
        *CallStatus,
        *ENDPOINTS,
        *FIELDS,
        *FIELDS.values(),
        "--record-content",
        "--speedup",
    ],
)
def test_it_is_in_the_guide(name):
    assert f"`{name}`" in GUIDE


def test_every_code_is_in_the_guide():
    sources = (ROOT / "src/scepsy/gateway").glob("*.py")
    codes = {code for path in sources for code in re.findall(r'code="(\w+)"', path.read_text())}

    assert len(codes) > 10
    assert [code for code in sorted(codes) if f"`{code}`" not in GUIDE] == []


def test_the_commands_defaults_are_those_of_what_it_sets():
    defaults = {name: each.default for name, each in signature(gateway).parameters.items()}

    assert defaults["patience"] == Settings().patience
    assert (defaults["max_waiting"], defaults["max_wait_s"]) == (
        DoorLimits().calls,
        DoorLimits().wait_s,
    )
