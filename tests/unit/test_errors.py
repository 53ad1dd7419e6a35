"""Errors say what is wrong and what to change."""

import inspect

from scepsy import errors
from scepsy.errors import ScepsyError, UnknownNameError


def classes() -> dict[str, type[ScepsyError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, ScepsyError)
    }


def test_a_close_name_is_suggested() -> None:
    error = UnknownNameError("model", "qwen3-8", ["qwen3-8b", "qwen3-32b", "llama-3.1-8b"])
    assert str(error) == "unknown model `qwen3-8`"
    assert error.hint is not None
    assert error.hint.startswith("did you mean qwen3-8b")
    assert (error.kind, error.name) == ("model", "qwen3-8")


def test_without_a_close_name_all_are_listed_in_order() -> None:
    assert UnknownNameError("GPU", "zzz", ["h100", "a100"]).hint == "known: a100, h100"


def test_without_any_known_name_the_hint_says_so() -> None:
    assert UnknownNameError("LLM", "x", []).hint == "there are none"


def test_the_tree_at_the_top_of_the_module_names_every_error() -> None:
    tree = errors.__doc__ or ""
    drawn = [line.strip("│├└─ ").split()[0] for line in tree.splitlines() if "Error" in line]
    assert sorted(drawn) == sorted(classes())
