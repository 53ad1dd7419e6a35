import pytest

from scepsy.gateway.hints import FIELDS, NOTHING_TOLD, parse_hints
from scepsy.policy.program import Hints

NOW_S = 100.0


def told(headers=None, **body):
    return parse_hints(headers or {}, body, NOW_S)


def test_who_says_nothing_is_told_nothing():
    assert told({"x-other": "1"}, model="m", scepsy=None) is NOTHING_TOLD


def test_all_of_it_in_the_body():
    found = told(
        scepsy={
            "tenant": "research",
            "priority": 2,
            "deadline_s": 30,
            "next_tool": "bash",
            "gap_s": 1.5,
            "output_tokens": 200,
            "last": True,
        }
    )

    assert found.tenant == "research"
    assert found.is_last
    assert found.bad == ()
    assert found.hints == Hints(
        next_tool="bash", gap_s=1.5, output_tokens=200.0, deadline_s=130.0, priority=2
    )


def test_all_of_it_in_headers_which_go_before_the_body():
    said = ("research", "2", "30", "bash", "1.5", "200", "true")
    headers = dict(zip(FIELDS.values(), said, strict=True))

    assert told(headers, scepsy={"tenant": "other", "gap_s": 9}) == told(
        scepsy=dict(zip(FIELDS, said, strict=True))
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gap_s", "soon"),
        ("gap_s", "-1"),
        ("gap_s", "nan"),
        ("output_tokens", "0"),
        ("deadline_s", "inf"),
        ("priority", "1.5"),
        ("last", "perhaps"),
    ],
)
def test_what_cannot_be_read_is_left_out_alone(field, value):
    found = told({FIELDS[field]: value, "x-scepsy-tenant": "research"})

    assert found.bad == (field,)
    assert found.tenant == "research"
    assert found.hints == Hints()
    assert not found.is_last


def test_a_priority_is_bounded():
    assert told({"x-scepsy-priority": "1000000"}).hints.priority == 4
    assert told({"x-scepsy-priority": "-9"}).hints.priority == -4


def test_what_other_systems_clients_say():
    found = told(
        {"x-dynamo-session-final": "true", "x-tenant-id": "a"},
        vllm_xargs={"agentic_context": {"deadline_seconds": 5}},
        nvext={"agent_hints": {"osl": 64}},
    )

    assert (found.tenant, found.is_last) == ("a", True)
    assert found.hints == Hints(deadline_s=105.0, output_tokens=64.0)


def test_a_body_of_another_shape_says_nothing():
    assert told(scepsy=[1], vllm_xargs="x", nvext={"agent_hints": 3}) is NOTHING_TOLD
