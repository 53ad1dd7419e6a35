import json
from pathlib import Path

import pytest

from scepsy.errors import InputError, MissingError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.profiles.store import load_profiles, save_profiles


def profiles() -> ProfileSet:
    key = ProfileKey(
        stage=Stage(WorkflowName("rag"), LlmName("qwen3-8b"), Role("generator")),
        gpu_type=GpuTypeName("h100"),
        tensor_parallel=2,
        gpu_fraction=0.3,
        replicas=4,
    )
    point = ProfilePoint(utilization=0.1, latency_s_mean=1 / 3, latency_s_p95=0.5, ttft_s_mean=0.01)
    curve = ProfileCurve(
        key=key,
        capacity_per_s=12.5,
        points=(point,),
        provenance=Provenance.SIMULATED,
        source="engine model",
    )
    return ProfileSet((curve,))


def test_what_is_saved_is_loaded_again_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "profiles.json"
    save_profiles(path, profiles())
    assert load_profiles(path) == profiles()
    assert [entry.name for entry in tmp_path.iterdir()] == ["profiles.json"]


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no profiles at") as caught:
        load_profiles(tmp_path / "none.json")
    assert caught.value.hint == "make them: scepsy profile"


def test_a_cut_file_another_version_and_an_unknown_key_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "profiles.json"
    save_profiles(path, profiles())
    text = path.read_text()
    for bad in (
        text[:-20],
        json.dumps({**json.loads(text), "version": 2}),
        json.dumps({**json.loads(text), "wrong": 1}),
    ):
        path.write_text(bad)
        with pytest.raises(InputError, match="is not a profile file of version 1"):
            load_profiles(path)


def test_a_value_that_cannot_be_is_refused_with_the_file_s_name(tmp_path: Path) -> None:
    path = tmp_path / "profiles.json"
    save_profiles(path, profiles())
    path.write_text(path.read_text().replace("12.5", "-1"))
    with pytest.raises(InputError, match=r"profiles\.json: profile of rag/qwen3-8b:generator"):
        load_profiles(path)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write profiles"):
        save_profiles(tmp_path / "no" / "such" / "folder.json", profiles())
