"""Slurm and Kubernetes: the text that they get, against stand-ins of their programs, and kubectl's own reading of it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import textwrap
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from jobs.work import shell
from oneformer.cli import main
from oneformer.errors import UserError, WorkError
from oneformer.jobs import create_job
from oneformer.jobs.executors import EXECUTORS
from oneformer.jobs.executors.kubernetes import manifest
from oneformer.jobs.executors.slurm import script
from oneformer.jobs.pipeline import checked
from oneformer.jobs.record import CANCELED, COMPLETE, ERROR, PENDING, Record
from oneformer.jobs.settle import SILENT_S
from oneformer.jobs.store import Store

# It reads the script's own lines, as sbatch does, keeps what it was given, and runs the script in the background.
SBATCH = """
script="$2"; here="{here}"
number=$(( $(cat "$here/last" 2>/dev/null || echo 100) + 1 )); echo $number > "$here/last"
cp "$script" "$here/$number.sh"
log=$(sed -n 's/^#SBATCH --output="\\(.*\\)"$/\\1/p' "$script" | sed 's/%%/%/g')
[ -f "$here/hold" ] || setsid sh "$script" >> "$log" 2>&1 < /dev/null &
echo "$number;cluster"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins, first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def stand_in(tools: Path, name: str, text: str) -> None:
    path = tools / name
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(text)}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def slurm(tools: Path) -> Path:
    stand_in(tools, "sbatch", SBATCH.format(here=tools))
    stand_in(tools, "squeue", f'echo "$@" >> {tools}/asked; cat {tools}/state 2>/dev/null')
    stand_in(tools, "scancel", f'echo "$@" >> {tools}/canceled')
    return tools


def job(store: Store, **more: Any) -> Record:
    return Record(id="train-3f9a1c", action="train", order=0, executor="slurm", python="/env/bin/python", **more)


def test_the_script_says_what_is_needed_and_runs_the_worker(store: Store) -> None:
    record = job(store, gpus=2, cpus=10, options={"partition": "gpu", "time": "08:00:00"})
    assert script(store, record, ["7", "8"]).splitlines() == [
        "#!/bin/sh",
        "#SBATCH --job-name=train-3f9a1c",
        f'#SBATCH --output="{store.root}/train-3f9a1c/log.txt"',
        "#SBATCH --open-mode=append",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        "#SBATCH --cpus-per-task=10",
        "#SBATCH --gres=gpu:2",
        "#SBATCH --partition=gpu",
        "#SBATCH --time=08:00:00",
        "#SBATCH --dependency=afterok:7:8",
        "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --no-requeue",
        f"exec /env/bin/python -P -m oneformer.jobs.worker {store.root}/train-3f9a1c --tell",
    ]


def test_paths_with_odd_signs_stay_whole(tmp_path: Path, store: Store) -> None:
    odd = Store(tmp_path / "my %j jobs; rm")
    text = script(odd, job(odd))
    assert f'--output="{tmp_path}/my %%j jobs; rm/train-3f9a1c/log.txt"' in text
    said = subprocess.run(
        ["sh", "-c", text.replace("exec /env/bin/python", "printf '%s\\n'")], capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines()[-2] == f"{odd.root}/train-3f9a1c"
    with pytest.raises(UserError, match="cannot write a log"):
        EXECUTORS["slurm"].check(Store(tmp_path / 'a"b'), job(odd))


def test_a_job_runs_through_sbatch_and_its_record_is_true(store: Store, slurm: Path) -> None:
    good = shell(store, "echo here; exit 0", executor="slurm", cpus=1)
    assert good.wait(60) == COMPLETE and good.record.external == "101" and good.log == "here\n"
    bad = shell(store, "exit 4", executor="slurm", cpus=1)
    assert bad.wait(60) == ERROR and bad.record.exit_code == 4


def test_the_exit_code_tells_slurm_how_the_job_ended(store: Store, slurm: Path) -> None:
    (slurm / "hold").touch()
    codes = {}
    for word in ("true", "false"):
        made = shell(store, word, executor="slurm", cpus=1)
        codes[word] = subprocess.run(["sh", str(made.folder / "slurm.sh")], check=False, capture_output=True).returncode
        assert made.state in (COMPLETE, ERROR)
    assert codes == {"true": 0, "false": 1}


def test_a_chain_is_slurms_own(store: Store, slurm: Path) -> None:
    (slurm / "hold").touch()
    first = shell(store, "true", executor="slurm")
    second = shell(store, "true", executor="slurm", after=[first.id])
    assert "--dependency=afterok:101\n" in (slurm / "102.sh").read_text()
    assert second.record.external == "102"
    with pytest.raises(UserError, match="is no job of local|no job of slurm"):
        shell(store, "true", executor="slurm", after=[shell(store, "sleep 5").id])


def test_a_waiting_job_is_taken_back_from_slurm(store: Store, slurm: Path) -> None:
    (slurm / "hold").touch()
    made = shell(store, "true", executor="slurm")
    assert made.cancel() == CANCELED
    assert (slurm / "canceled").read_text() == "101\n"


def test_a_job_that_slurm_has_lost_is_an_error(store: Store, slurm: Path) -> None:
    (slurm / "hold").touch()
    made = shell(store, "true", executor="slurm")
    assert made.state == PENDING and not (slurm / "asked").exists()  # a fresh job is not asked for
    long_ago = time.time() - 2 * SILENT_S
    os.utime(made.folder / "job.json", (long_ago, long_ago))
    (slurm / "state").write_text("PENDING\n")
    assert made.state == PENDING
    (slurm / "state").write_text("")
    assert made.state == ERROR and "has ended without a word" in made.message


def test_what_sbatch_refuses_is_told_and_does_not_stay_pending(store: Store, tools: Path) -> None:
    stand_in(tools, "sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(WorkError, match="invalid partition"):
        shell(store, "true", executor="slurm", options={"partition": "gpu"})
    assert [record.state for record in store.records()] == [CANCELED]


@pytest.mark.parametrize(
    ("executor", "options", "said"),
    [
        ("slurm", {"partiton": "x"}, "no option partiton"),
        ("slurm", {"partition": "a b"}, "no value for partition"),
        ("kubernetes", {}, "needs image and claim"),
        ("kubernetes", {"image": "i", "claim": "c", "mount": "/data"}, "does not lie in /data"),
        ("kubernetes", {"image": "i", "claim": "C_1", "mount": "/"}, "no name for a claim"),
    ],
)
def test_wrong_options_are_refused(executor: str, options: dict[str, str], said: str, store: Store) -> None:
    with pytest.raises(UserError, match=said):
        shell(store, "true", executor=executor, options=options)
    assert not store.root.exists() or not store.ids()


def test_without_its_program_an_executor_says_so(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch on this machine"):
        shell(store, "true", executor="slurm")


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        ([], (1, 5)),
        (["train.num_gpus=4"], (4, 20)),
        (["train.accelerator=cpu"], (0, 5)),
        (["dataset.train.num_workers=8"], (1, 9)),
    ],
)
def test_what_a_job_needs_elsewhere_does_not_depend_on_this_machine(
    words: list[str], needs: tuple[int, int], store: Store, slurm: Path
) -> None:
    (slurm / "hold").touch()
    workers = [f"dataset.{split}.num_workers=4" for split in ("train", "val", "test")]
    record = create_job("train", None, [*workers, *words], jobs=store.root, executor="slurm").record
    assert (record.gpus, record.cpus) == needs


# What the Kubernetes API asks of a Job, as far as ours uses it; nothing else may stand there.
TEXT, TEXTS = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}


def table(needed: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": needed | more, "required": list(needed), "additionalProperties": False}


MOUNTS = {"type": "array", "items": table({"name": TEXT, "mountPath": {"type": "string", "pattern": "^/"}})}
CONTAINER = table(
    {"name": TEXT, "image": TEXT, "command": {"type": "array", "items": TEXT}},
    workingDir=TEXT, resources=table({"limits": TEXTS}), volumeMounts=MOUNTS,
)  # fmt: skip
VOLUME = table(
    {"name": TEXT}, persistentVolumeClaim=table({"claimName": TEXT}), emptyDir=table({}, medium={"enum": ["Memory"]})
)
POD = table(
    {"restartPolicy": {"enum": ["Never", "OnFailure"]}, "containers": {"type": "array", "items": CONTAINER}},
    volumes={"type": "array", "items": VOLUME},
)
META = table(
    {},
    name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 63},
    labels=TEXTS,
    namespace=TEXT,
)
COUNT = {"type": "integer", "minimum": 0}
JOB = table(
    {
        "apiVersion": {"const": "batch/v1"},
        "kind": {"const": "Job"},
        "metadata": META,
        "spec": table(
            {"template": table({"spec": POD}, metadata=META)},
            backoffLimit=COUNT, completions=COUNT, parallelism=COUNT, ttlSecondsAfterFinished=COUNT,
        ),
    }
)  # fmt: skip


def kubernetes_job(store: Store, **more: Any) -> Record:
    options = {"image": "registry.example/oneformer:0.1", "claim": "data", "namespace": "vision"}
    return Record(
        id="gen_trt_engine-3f9a1c", action="gen_trt_engine", order=0, executor="kubernetes", cwd=str(store.root.parent),
        options=options, gpus=1, cpus=4, **more,
    )  # fmt: skip


def test_the_manifest_is_a_job_as_kubernetes_defines_it(store: Store) -> None:
    told = manifest(store, kubernetes_job(store))
    jsonschema.validate(told, JOB)
    assert told["metadata"]["name"] == "oneformer-gen-trt-engine-3f9a1c-1"
    container = told["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"cpu": "4", "nvidia.com/gpu": "1"}
    assert container["command"] == [
        "python", "-P", "-m", "oneformer.jobs.worker", str(store.root / "gen_trt_engine-3f9a1c"), "--tell", "--log",
    ]  # fmt: skip


@pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl")
def test_kubectl_itself_reads_every_field(store: Store, tmp_path: Path) -> None:
    """It reads the manifest into the types of the API, and what is no field of theirs does not come back."""
    told = manifest(store, kubernetes_job(store))
    assert contained(told, read_by_kubectl(told, tmp_path)) == []
    told["spec"]["backofLimit"] = 0  # and this is how a slip shows
    assert contained(told, read_by_kubectl(told, tmp_path)) == [".spec.backofLimit: 0 is None"]


def read_by_kubectl(told: dict[str, Any], folder: Path) -> Any:
    """The manifest as kubectl writes it again after it set the image, to the one that is asked for; no cluster is asked."""
    file = folder / "job.json"
    image = told["spec"]["template"]["spec"]["containers"][0]["image"]
    file.write_text(json.dumps(told).replace(json.dumps(image), '"another"'))
    command = ["kubectl", "set", "image", "--local", "--filename", str(file), f"worker={image}", "--output=json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def contained(part: Any, whole: Any, at: str = "") -> list[str]:
    """What of one tree is not in another."""
    if isinstance(part, dict):
        return [row for key, value in part.items() for row in contained(value, (whole or {}).get(key), f"{at}.{key}")]
    if isinstance(part, list):
        return [
            row for n, value in enumerate(part) for row in contained(value, (whole or [None] * 99)[n], f"{at}[{n}]")
        ]
    return [] if part == whole else [f"{at}: {part!r} is {whole!r}"]


def test_a_job_is_applied_looked_after_and_removed(store: Store, tools: Path, tmp_path: Path) -> None:
    stand_in(tools, "kubectl", f'echo "$@" >> {tools}/asked; [ "$1" = get ] && cat {tools}/state; exit 0')
    options = {"image": "oneformer", "claim": "data", "mount": "/"}
    made = shell(store, "true", executor="kubernetes", options=options)
    name = made.record.external
    assert f"apply --filename {made.folder}/kubernetes.json" in (tools / "asked").read_text()
    jsonschema.validate(json.loads((made.folder / "kubernetes.json").read_text()), JOB)
    long_ago = time.time() - 2 * SILENT_S
    os.utime(made.folder / "job.json", (long_ago, long_ago))
    (tools / "state").write_text(json.dumps({"status": {"active": 1}}))
    assert made.state == PENDING
    (tools / "state").write_text(json.dumps({"status": {"failed": 1}}))
    assert made.state == ERROR and name in made.message
    other = shell(store, "true", executor="kubernetes", options=options)
    assert other.cancel() == CANCELED
    assert f"delete job {other.record.external}" in (tools / "asked").read_text()


def test_kubernetes_keeps_no_order_and_says_so_before_anything_is_submitted(
    store: Store, tools: Path, tmp_path: Path
) -> None:
    stand_in(tools, "kubectl", "exit 0")
    options = {"image": "oneformer", "claim": "data", "mount": "/"}
    first = shell(store, "true", executor="kubernetes", options=options)
    with pytest.raises(UserError, match="keeps no order"):
        shell(store, "true", executor="kubernetes", options=options, after=[first.id])
    file = tmp_path / "pipeline.yaml"
    step = "executor: kubernetes, options: {image: i, claim: c, mount: /}"
    file.write_text(f"steps: [{{action: train, {step}}}, {{action: evaluate, {step}}}]")
    with pytest.raises(UserError, match="keeps no order"):
        checked(file, [], store.root)
    assert len(store.ids()) == 1


def test_the_command_line_says_who_runs_it(store: Store, slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (slurm / "hold").touch()
    words = ["jobs", "submit", "train", "--executor", "slurm", "--options", "partition=gpu,time=01:00:00"]
    assert main([*words, "--jobs", str(store.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"][0]["external"] == "101"
    assert "#SBATCH --partition=gpu\n#SBATCH --time=01:00:00\n" in (slurm / "101.sh").read_text()
