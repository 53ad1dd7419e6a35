"""Documentation is held to the code: nothing undocumented, nothing stale, no dead link."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from scepsy import errors
from scepsy.policy.route import POLICIES
from tools import build_docs

ROOT = Path(build_docs.__file__).parent.parent
COMMANDS = list(build_docs.commands())


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_says_what_it_does_with_an_example(name: str, command: Any) -> None:
    text = command.help or ""
    assert text.strip(), f"`{name}` has no help"
    assert "Example" in text, f"the help of `{name}` has no example"
    assert f"{name} " in text.split("Example", 1)[1], f"the example of `{name}` does not use it"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_parameter_is_explained(name: str, command: Any) -> None:
    silent = [param.name for param in command.params if not param.help]
    assert not silent, f"`{name}`: no help for {', '.join(silent)}"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_can_print_json(name: str, command: Any) -> None:
    assert any("--json" in param.opts for param in command.params), name


def test_generated_pages_are_up_to_date() -> None:
    assert build_docs.stale() == [], "run `make docs`"


def test_every_error_and_policy_is_described() -> None:
    things = [v for v in vars(errors).values() if inspect.isclass(v) and issubclass(v, Exception)]
    assert all(thing.__doc__ for thing in [*things, *POLICIES.values()])
    pages = build_docs.pages()
    assert all(f"`{error.__name__}`" in pages["errors.md"] for error in things)
    assert all(f"`{name}`" in pages["policies.md"] for name in POLICIES)


def test_every_link_leads_somewhere() -> None:
    assert build_docs.broken_links() == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A title, really\n")
    (tmp_path / "README.md").write_text(
        "[ok](there.md) [ok](there.md#a-title-really) [ok](https://example.org/x)\n"
        "[gone](away.md) [no heading](there.md#another)\n```\n[not a link](nowhere.md)\n```\n"
    )
    assert build_docs.broken_links(tmp_path) == [
        "README.md: away.md",
        "README.md: there.md#another",
    ]


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/*/*.md")]
    assert [page for page in sorted(pages) if f"({page})" not in index] == []


@pytest.mark.parametrize(
    ("page", "tests"),
    [("concepts/laws.md", "tests/property"), ("reference/published-system.md", "tests")],
)
def test_every_test_that_a_page_names_exists(page: str, tests: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    written = "".join(path.read_text() for path in (ROOT / tests).rglob("test_*.py"))
    named = re.findall(r"`(test_[a-z_0-9]+)`", text)
    assert len(named) > 10
    assert [name for name in named if f"def {name}(" not in written] == []
