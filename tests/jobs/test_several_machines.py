"""Jobs on several machines: what Kubernetes and Slurm are given, and that the machines run one action together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.test_executors import kubernetes_job
from jobs.work import until
from oneformer.errors import UserError
from oneformer.jobs import create_job
from oneformer.jobs.executors.kubernetes import SERVICE, manifest, service
from oneformer.jobs.executors.slurm import script
from oneformer.jobs.member import number
from oneformer.jobs.record import COMPLETE, ERROR, RUNNING, Record
from oneformer.jobs.store import Store
from oneformer.train.world import world

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate, which holds Kubernetes' published schemas, is not installed"
)
VERSIONS = ("1.25", "1.31", "1.37")
"""The oldest and the newest whose schemas are there, and one between."""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("nodes", [1, 4])
def test_the_manifests_are_valid_by_the_published_schemas(nodes: int, version: str, store: Store) -> None:
    record = kubernetes_job(store, nodes=nodes)
    for told in (manifest(store, record), service(record)):
        kubernetes_validate.validate(told, version, strict=True)
    wrong = manifest(store, record)
    wrong["spec"]["completionMod"] = "Indexed"  # and this is how a slip shows
    with pytest.raises(kubernetes_validate.ValidationError, match="completionMod"):
        kubernetes_validate.validate(wrong, version, strict=True)


def variables(told: dict[str, Any], index: int) -> dict[str, str]:
    """What the pod of an index gets."""
    found = {}
    for row in told["spec"]["template"]["spec"]["containers"][0]["env"]:
        path = row.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        assert path in (None, "metadata.annotations['batch.kubernetes.io/job-completion-index']")
        found[row["name"]] = row.get("value") or str(index)
    return found


@pytest.mark.parametrize("gpus", [0, 2])
def test_the_pods_of_an_indexed_job_form_one_run(gpus: int, store: Store) -> None:
    record = kubernetes_job(store, nodes=3)
    record.gpus = gpus
    told = manifest(store, record)
    spec = told["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (
        "Indexed",
        3,
        3,
        0,
    )
    assert spec["template"]["spec"]["subdomain"] == SERVICE
    labels = spec["template"]["metadata"]["labels"]
    assert service(kubernetes_job(store))["spec"]["selector"].items() <= labels.items()
    command = spec["template"]["spec"]["containers"][0]["command"]
    assert "oneformer.jobs.member" in command
    for index in range(3):
        found = world(max(1, gpus), 3, key="train", told=variables(told, index))
        assert (found.nodes, found.per_node, found.node) == (3, max(1, gpus), index)
        assert found.address == f"{told['metadata']['name']}-0.{SERVICE}" and found.port == 29500


def test_a_job_of_one_machine_has_none_of_it(store: Store) -> None:
    told = manifest(store, kubernetes_job(store))
    assert "completionMode" not in told["spec"] and "env" not in told["spec"]["template"]["spec"]["containers"][0]


def test_slurm_starts_a_task_on_each_machine(store: Store) -> None:
    record = Record(id="train-3f9a1c", action="train", order=0, executor="slurm", python="/env/bin/python", nodes=2)
    lines = script(store, record).splitlines()
    assert {"#SBATCH --nodes=2", "#SBATCH --ntasks=2"} <= set(lines)
    assert lines[-1].startswith("exec srun --kill-on-bad-exit=1 /env/bin/python -P -m oneformer.jobs.member ")


def test_a_machine_is_known_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NODE_RANK", "SLURM_NODEID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="which machine this is"):
        number()
    monkeypatch.setenv("SLURM_NODEID", "3")
    assert number() == 3
    monkeypatch.setenv("NODE_RANK", "1")
    assert number() == 1


@pytest.mark.parametrize("executor", ["local", "docker", "ray"])
def test_executors_of_one_machine_refuse_several(executor: str, store: Store) -> None:
    with pytest.raises(UserError, match=f"{executor} does not run a job on 2 machines"):
        create_job("train", None, ["train.num_nodes=2"], jobs=store.root, executor=executor, options={})


def on_kubernetes(store: Store, monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """A submitted job of two machines, whose pods are to be started."""
    monkeypatch.setattr("oneformer.jobs.executors.kubernetes.run_tool", lambda *_, **__: "")
    options = {"image": "oneformer", "claim": "data", "mount": "/"}
    return create_job(
        "evaluate", None, ["evaluate.num_nodes=2", "evaluate.accelerator=cpu", *words],
        jobs=store.root, executor="kubernetes", options=options,
    )  # fmt: skip


def start(job: Any, index: int) -> subprocess.Popen[bytes]:
    """What the pod of an index runs, on this machine."""
    told = json.loads((job.folder / "kubernetes.json").read_text())
    made = next(item for item in told["items"] if item["kind"] == "Job")
    command = made["spec"]["template"]["spec"]["containers"][0]["command"]
    found = variables(made, index) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29671"}
    return subprocess.Popen([sys.executable, *command[1:]], env={**os.environ, **found}, cwd=job.folder)


def test_a_further_machine_waits_for_the_first_and_ends_with_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is wrong, so that the first machine says so soon; the other must not wait for ever, or run alone."""
    job = on_kubernetes(store, monkeypatch, "evaluate.checkpoint=none.pth")
    further = start(job, 1)
    with pytest.raises(subprocess.TimeoutExpired):
        further.wait(2)
    first = start(job, 0)
    assert first.wait(60) == 1 and job.state == ERROR and "none.pth" in job.message
    assert further.wait(60) != 0
    assert not (job.folder / "start.json").exists()


@pytest.mark.slow
def test_two_machines_score_each_photo_once(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from story.tiny_model import TINY, write_tiny_checkpoint
    from tiny import write_tiny_dataset

    data = write_tiny_dataset(tmp_path / "data", images=5).overrides("test")
    checkpoint = write_tiny_checkpoint(tmp_path / "model.pth")
    words = [
        *TINY,
        *data,
        f"evaluate.checkpoint={checkpoint}",
        "evaluate.report_images=0",
        "dataset.test.num_workers=0",
    ]
    job = on_kubernetes(store, monkeypatch, *words)
    pods = [start(job, index) for index in (1, 0)]
    until(lambda: job.state != RUNNING and job.record.ended, seconds=200)
    assert job.state == COMPLETE, job.log
    assert [pod.wait(60) for pod in pods] == [0, 0]
    scores = json.loads((job.results / "evaluate" / "metrics.json").read_text())
    alone = create_job("evaluate", None, [*words, "evaluate.accelerator=cpu"], jobs=store.root)
    assert alone.wait(200) == COMPLETE
    assert json.loads((alone.results / "evaluate" / "metrics.json").read_text())["semantic"] == scores["semantic"]
