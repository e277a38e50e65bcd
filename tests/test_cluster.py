"""Who computes together: what Kubernetes' operators, Slurm and the config say."""

from __future__ import annotations

import json

import pytest

from descent import UserError, cluster, compose
from descent.cluster import Cluster
from descent.strategy import MultiWorker


def tf_config(kind: str, index: int, **jobs: list[str]) -> str:
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}, "environment": "cloud"})


def test_tf_config_counts_the_chief_before_the_workers():
    jobs = {"chief": ["c:1"], "worker": ["a:1", "b:1"], "ps": ["p:1"]}
    assert cluster.from_tf_config(tf_config("chief", 0, **jobs)) == Cluster(("c:1", "a:1", "b:1"), 0)
    assert cluster.from_tf_config(tf_config("worker", 1, **jobs)) == Cluster(("c:1", "a:1", "b:1"), 2)
    assert cluster.from_tf_config(tf_config("worker", 1, worker=["a:1", "b:1"])) == Cluster(("a:1", "b:1"), 1)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"cluster": {"worker": ["a:1"]}}', tf_config("worker", 1, worker=["a:1"]),
             tf_config("evaluator", 0, worker=["a:1"])]
)  # fmt: skip
def test_a_tf_config_that_says_too_little_is_shown(text: str):
    with pytest.raises(UserError, match="TF_CONFIG should name the workers and the task"):
        cluster.from_tf_config(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("login", ["login"]),
        ("n1,n2", ["n1", "n2"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("a[1,3-4]x,b", ["a1x", "a3x", "a4x", "b"]),
        ("gpu-a[001-002],gpu-b7", ["gpu-a001", "gpu-a002", "gpu-b7"]),
        ("127.0.0.1", ["127.0.0.1"]),
    ],
)
def test_the_node_list_of_slurm_in_full(text: str, names: list[str]):
    """The forms that `man sbatch` and `scontrol show hostnames` know, with one range of numbers a name."""
    assert cluster.hosts(text) == names


@pytest.mark.parametrize(("text", "counts"), [("2", [2]), ("2(x3),1", [2, 2, 2, 1]), ("1,4(x2)", [1, 4, 4])])
def test_the_tasks_of_each_node_in_full(text: str, counts: list[int]):
    assert cluster.tasks(text) == counts


def test_slurm_places_one_worker_a_task():
    variables = {"SLURM_PROCID": "2", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": "2,1"}
    assert cluster.found(variables, 5000) == Cluster(("n1:5000", "n1:5001", "n2:5000"), 2)
    with pytest.raises(UserError, match="SLURM_STEP_NODELIST is not set; start the workers with srun"):
        cluster.found({"SLURM_PROCID": "2"}, 5000)
    with pytest.raises(UserError, match="this as task 3"):
        cluster.found({**variables, "SLURM_PROCID": "3"}, 5000)


def test_tf_config_counts_more_than_slurm():
    given = tf_config("worker", 0, worker=["a:1"])
    assert cluster.found({"TF_CONFIG": given, "SLURM_PROCID": "9"}, 1) == Cluster(("a:1",), 0)


def test_without_any_word_of_others_the_message_says_what_to_do(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"start them with scripts/launch\.py or srun"):
        MultiWorker().worker()
    assert MultiWorker().replicas() is None
    explicit = MultiWorker(addresses=("a:1", "b:1"), task=1)
    assert (explicit.worker(), explicit.workers(), explicit.replicas()) == (1, 2, 2)


def test_a_batch_that_workers_cannot_share_out_is_a_mistake_of_the_config(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config("worker", 0, worker=["a:1", "b:1", "c:1"]))
    with pytest.raises(UserError, match=r"trainer\.batch_size=32 is the global batch, and should be a multiple of 3"):
        compose("strategy=multi_worker")
