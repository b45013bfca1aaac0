"""A spec with a checkpoint -> a graph file that runs without us, its description, and the proof that it is the same."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.actions.around import action
from oneformer.actions.plan import Plan
from oneformer.errors import CheckpointError, SpecError, WorkError
from oneformer.runs import RunFolder, StatusLog, run_path
from oneformer.runs.atomic import write_json
from oneformer.spec.tree import to_dict

if TYPE_CHECKING:
    from oneformer.engines.about import About
    from oneformer.engines.torch import TorchEngine
    from oneformer.export.parity import Parity
    from oneformer.export.place import Place
    from oneformer.spec import ExperimentSpec

log = logging.getLogger(__name__)

PARITY = "parity.json"
MIB = 2**20


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares."""

    files: Sequence[Path]
    """The graph first."""
    parity: Parity
    parity_file: Path
    ports: str
    """Inputs and outputs with their shapes."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "files": {str(file): file.stat().st_size for file in self.files},
            "graph": self.ports,
            "parity_file": str(self.parity_file),
            "parity": self.parity.to_dict(),
        }

    def table(self) -> str:
        """Files, differences, agreement and times."""
        from oneformer.report.tables import align

        told = self.parity.to_dict()
        files = [(str(file), f"{file.stat().st_size / MIB:.1f}") for file in self.files]
        outputs = [
            (name, f"{d['largest']:.2e}", f"{d['mean']:.2e}", f"{d['largest_value']:.1f}")
            for name, d in told["outputs"].items()
        ]
        share = [
            ("pixels with the same class", f"{told['semantic']['same']:.4%}"),
            (f"panoptic segments found again (of {told['panoptic']['segments']})", f"{told['panoptic']['same']:.4%}"),
        ]
        share += [(f"seconds per image, {name}", f"{s:.3f}") for name, s in told["seconds_per_image"].items()]
        blocks = [
            align(("file", "MiB"), files),
            self.ports,
            f"compared on {self.parity.images}\n" + align(("output", "largest", "mean", "largest value"), outputs),
            align(("agreement", ""), share),
        ]
        if told["scores"]:
            columns = ("reference", "exported", "difference")
            rows = [(name, *(f"{score[c]:.2f}" for c in columns)) for name, score in told["scores"].items()]
            blocks.append(align(("score", "checkpoint", "exported", "difference"), rows))
        if self.parity.settled:
            blocks.append(self.parity.settled.told())
        verdict = "; ".join(self.parity.faults)
        blocks.append(f"parity: {'NOT the same, accepted: ' + verdict if verdict else 'the same'} ({self.parity_file})")
        return "\n\n".join(blocks)


@action("export")
def run(spec: ExperimentSpec, *, dry_run: bool = False) -> Exported | Plan:
    """Write `export.checkpoint` as `export.format` and compare the file with it.

    The file takes its final name after it was opened again and computed the same; until then it lies in a folder of
    another name, which is removed whatever happens.

    Raises:
        UserError: the request cannot be fulfilled: no checkpoint, a file in the way, an extra that is missing.
        WorkError: the file does not compute the same (and `export.accept_parity` is off), or cannot be written.
    """
    from oneformer.data.sources import fetched, planned
    from oneformer.export.files import ENDINGS, check_installed
    from oneformer.export.place import Place

    section = spec.export
    folder_path = run_path(spec.results_dir, "export", section_dir=section.results_dir)
    target = Path(section.onnx_file) if section.onnx_file else folder_path / f"model{ENDINGS[section.format]}"
    checkpoint = check_request(spec, target)
    place = Place(target, overwrite=section.overwrite, beside=others(target, section.format))
    if dry_run:
        plan, fetches = planned(spec, "export")
        return replace(_plan(plan, folder_path, target), fetches=fetches)
    check_installed(section.format)
    folder = RunFolder(spec.results_dir, "export", section_dir=section.results_dir)
    with StatusLog(folder.status, "export") as status:
        folder.write_experiment(to_dict(spec))
        spec = fetched(spec, "export")
        reference = open_reference(spec, checkpoint)
        about = describe(spec, reference, checkpoint)
        with place:
            parity, files, ports = write_and_compare(spec, reference, about, place)
            write_json(folder / PARITY, parity.to_dict())
            if not section.accept_parity and parity.faults:
                raise WorkError(
                    f"the exported file does not compute the same: {'; '.join(parity.faults)}",
                    where=str(target),
                    hint=f"it was not kept; see {folder / PARITY}, or keep it with export.accept_parity=true",
                )
            done = Exported(place.publish(files), parity, folder / PARITY, ports)
        status.running(f"Exported {target.name}.", kpi={n: d.largest for n, d in parity.outputs.items()})
    return done


def check_request(spec: ExperimentSpec, target: Path) -> Path:
    """What can be said before anything is opened: a checkpoint that is there, a fitting ending, devices. Returns it."""
    from oneformer.engines.open import checked_kind, chosen_engine
    from oneformer.export.files import ENDINGS
    from oneformer.model.weights.load import beside

    section = spec.export
    if not section.checkpoint:
        raise SpecError(
            "no weight file is named",
            where="export.checkpoint",
            hint="set export.checkpoint=results/train/oneformer_model_best.pth",
        )
    checkpoint = checked_kind(section.checkpoint)
    if not checkpoint.exists():
        raise CheckpointError("the weight file does not exist", where=str(checkpoint), hint=beside(checkpoint.parent))
    if chosen_engine(checkpoint, "auto") != "torch":
        raise SpecError("the file is an export already", where="export.checkpoint", hint="name a checkpoint (.pth)")
    wanted = ENDINGS[section.format]
    if target.suffix.lower() != wanted:
        raise SpecError(
            f"a file of export.format={section.format} ends in {wanted}, not in {target.suffix or 'nothing'}",
            where="export.onnx_file",
            hint=f"for example {target.with_suffix(wanted)}",
        )
    return checkpoint


def others(target: Path, format: str) -> list[Path]:
    """The files beside the graph that may not be in the way; an older description of ours may, it is replaced."""
    from oneformer.engines.about import is_about

    weights = {"openvino": [target.with_suffix(".bin")], "onnx": [target.with_name(f"{target.name}.data")]}
    about = target.with_suffix(".json")
    return [*weights.get(format, []), *([] if is_about(about) else [about])]


def open_reference(spec: ExperimentSpec, checkpoint: Path) -> TorchEngine:
    """The checkpoint in float32, on the GPU of `export.gpu_id` where there is one and `export.on_cpu` is off."""
    import torch

    from oneformer.engines.torch import TorchEngine

    section = spec.export
    gpu = f"cuda:{section.gpu_id}"
    device = gpu if not section.on_cpu and torch.cuda.is_available() else "cpu"
    engine = TorchEngine.from_checkpoint(checkpoint, precision="fp32", device=device)
    log.info("opened %s on %s", checkpoint.name, engine.device)
    return engine


def describe(spec: ExperimentSpec, reference: TorchEngine, checkpoint: Path) -> About:
    """What the file will say of itself; no path of this machine."""
    from oneformer.engines.about import About
    from oneformer.runs.folder import versions

    section = spec.export
    return About(
        labels=reference.labels,
        info=reference.info,
        task_tokens={task: row.tolist() for task, row in reference.task_tokens.items()},
        task=section.task,
        precision="fp16" if section.half else "fp32",
        embed_preprocess=section.embed_preprocess,
        origin={
            "checkpoint": checkpoint.name,
            "format": section.format,
            "versions": versions(),
            **({"quantized": reference.quantized} if reference.quantized else {}),
        },
    )


def write_and_compare(
    spec: ExperimentSpec, reference: TorchEngine, about: About, place: Place
) -> tuple[Parity, list[Path], str]:
    """Write the draft and compare it; a tidied graph that fails is written again as it came. Returns the files too."""
    from oneformer.export.files import write_graph

    section = spec.export
    for simplify in (True, False) if section.simplify and section.format != "torch" else (False,):
        files = write_graph(reference.model, about, section, place.draft, simplify=simplify)
        parity, ports = compare_draft(spec, reference, place.draft)
        if not parity.faults or not simplify:
            break
        log.warning("the simplified graph does not compute the same (%s); trying without", "; ".join(parity.faults))
    return parity, files, ports


def compare_draft(spec: ExperimentSpec, reference: TorchEngine, draft: Path) -> tuple[Parity, str]:
    """The proof, from the file as it was written; and its inputs and outputs in words."""
    from oneformer.data.task import allowed_tasks
    from oneformer.engines.graph import GraphEngine
    from oneformer.engines.open import open_engine
    from oneformer.export.images import choose_images
    from oneformer.export.parity import compare
    from oneformer.model.quantized import rounds_inputs

    section = spec.export
    precision = "auto" if section.format == "onnx" else "fp32"  # an ONNX file computes in what is in it
    device = str(reference.device) if section.format == "torch" else "cpu"
    try:
        engine = open_engine(draft, precision=precision, device=device)
    except CheckpointError as error:  # of a file that we have just written
        raise WorkError(f"the exported file cannot be opened again: {error.what}", where=draft.name) from error
    assert isinstance(engine, GraphEngine)
    images = choose_images(spec, engine.info, engine.labels)
    images = replace(images, batches=[replace(b, images=engine.seen(b.images)) for b in images.batches])
    log.info("comparing %s with the checkpoint on %s", draft.name, images.source)
    tasks = allowed_tasks(reference.info.model.task_toggling)
    parity = compare(reference, engine, images, tasks=tasks, exact=not (section.half or rounds_inputs(reference.model)))
    return parity, engine.told


def _plan(spec: ExperimentSpec, folder: Path, target: Path) -> Plan:
    names = ("experiment.yaml", "status.json", PARITY)
    beside = {"openvino": [target.with_suffix(".bin")]}.get(spec.export.format, [])
    files = [target, *beside, target.with_suffix(".json"), *(folder / name for name in names)]
    return Plan({"checkpoint": spec.export.checkpoint}, [str(file) for file in files])
