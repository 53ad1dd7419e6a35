"""Cluster files: what is read, and how wrong ones are answered."""

from pathlib import Path

import pytest

from scepsy.errors import InputError, MissingError
from scepsy.files.cluster_file import load_cluster
from scepsy.model.cluster import Cluster
from scepsy.profiles.catalog import find_gpu_type
from scepsy.units import GIB


def load(tmp_path: Path, text: str) -> Cluster:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return load_cluster(path, find_gpu_type)


def test_equal_nodes_are_one_entry(tmp_path: Path) -> None:
    cluster = load(tmp_path, "nodes:\n  - gpu: h100\n    gpus: 8\n    count: 2\n")

    assert [gpu.id for gpu in cluster.gpus][7:9] == ["node-0/gpu-7", "node-1/gpu-0"]
    assert [len(domain.gpus) for domain in cluster.domains] == [8, 8]
    assert cluster.types == (find_gpu_type("h100"),)


def test_racks_domains_and_own_types(tmp_path: Path) -> None:
    """Pairs in one rack; a domain over two nodes in another; numbers go on where names repeat."""
    cluster = load(
        tmp_path,
        """
nodes:
  - {gpu: big, gpus: 4, rack: left, gpus_per_nvlink_domain: 2}
  - {gpu: h100, gpus: 4, count: 2, rack: right, gpus_per_nvlink_domain: 8}
  - {gpu: h100, gpus: 1, name: spare}
gpu_types:
  - {name: big, memory_gib: 288}
""",
    )

    domains = [(d.name, len(d.gpus), {g.rack for g in d.gpus}) for d in cluster.domains]
    assert domains == [
        ("node-0/nvlink-0", 2, {"left"}),
        ("node-0/nvlink-1", 2, {"left"}),
        ("node-1", 8, {"right"}),
        ("spare-0", 1, {"rack-0"}),
    ]
    assert {gpu.node for gpu in cluster.domains[2].gpus} == {"node-1", "node-2"}
    assert cluster.types[0].memory_bytes == 288 * GIB


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "nodes:\n  - gpu: h100\n    gpus: -8\n",
            r"line 3: `nodes\[0\].gpus`: input should be greater than or equal to 1, got -8",
            None,
        ),
        (
            "nodes:\n  - gpu: h100\n    gpuz: 8\n",
            r"line 3: unknown key `nodes\[0\].gpuz` \(and 1 more\)",
            "did you mean `gpu` or `gpus`?",
        ),
        (
            "nodes:\n  - {gpu: h100, gpus: 8}\ncolour: red\n",
            "line 3: unknown key `colour`",
            "known keys: gpu_types, nodes",
        ),
        ("nodes:\n  - gpu: h100\n", r"line 2: `nodes\[0\].gpus` is missing", None),
        ("nodes: []\n", "line 1: `nodes`: list should have at least 1 item", None),
        ("nodes:\n  - {gpu: h100, gpus: '8'}\n", "a valid integer, got '8'", None),
        ("nodes:\n  - {gpu: h100, gpus: 8, gpus: 4}\n", "line 2: `gpus` is repeated", None),
        ("nodes: [\n", "is not YAML: .*line 2", None),
        ("", "`the file`: input should be", None),
        (
            "nodes:\n  - {gpu: h10, gpus: 8}\n",
            "unknown GPU type `h10`",
            "describe it under `gpu_types`",
        ),
        (
            "nodes:\n  - {gpu: h100, gpus: 8, gpus_per_nvlink_domain: 3}\n",
            "neither divides the node's 8 GPUs",
            "leave it out",
        ),
        (
            "nodes:\n  - {gpu: h100, gpus: 4, count: 3, gpus_per_nvlink_domain: 8}\n",
            "12 GPUs, which do not fill NVLink domains of 8",
            None,
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path, text)
    assert hint is None or hint in (error.value.hint or "")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"there is no cluster file at .*none\.yaml"):
        load_cluster(tmp_path / "none.yaml", find_gpu_type)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(b"\xff\xfe\x00nodes")
    with pytest.raises(InputError, match="cannot read the cluster file"):
        load_cluster(path, find_gpu_type)
