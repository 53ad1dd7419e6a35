import random
from pathlib import Path

import pytest

from scepsy.engines.script import Answer, first_answer, load_script
from scepsy.errors import InputError

REQUEST = {"messages": [{"role": "user", "content": "hi"}]}


def write(path: Path, source: str) -> Path:
    path.write_text(source)
    return path


def test_the_first_script_that_knows_a_request_answers_it(tmp_path: Path) -> None:
    head = "from scepsy.engines.script import Answer\ndef answer(request, rng):\n    return "
    silent = load_script(write(tmp_path / "a.py", head + "None"))
    knows = load_script(write(tmp_path / "b.py", head + "Answer(text=str(rng.random()))"))
    never = load_script(write(tmp_path / "c.py", head + "Answer(text='never')"))
    found = first_answer([silent, knows, never], REQUEST, random.Random(1))
    assert found == Answer(text=str(random.Random(1).random()))
    assert first_answer([silent], REQUEST, random.Random(1)) is None


def test_what_is_no_answer_is_refused(tmp_path: Path) -> None:
    bad = load_script(write(tmp_path / "a.py", "def answer(request, rng):\n    return 'text'"))
    with pytest.raises(InputError, match="a script answered with str"):
        first_answer([bad], REQUEST, random.Random(1))
    with pytest.raises(InputError, match="output_tokens 0"):
        Answer(output_tokens=0)


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("a.py", "1/0", "ZeroDivisionError"),
        ("a.py", "def answer(:", "SyntaxError"),
        ("a.py", "x = 1", "no function `answer`"),
        ("a.txt", "x = 1", "not a Python file"),
    ],
)
def test_a_bad_script_says_what_is_wrong(tmp_path: Path, name: str, source: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_script(write(tmp_path / name, source))


def test_a_missing_script_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no script .*gone\.py"):
        load_script(tmp_path / "gone.py")
