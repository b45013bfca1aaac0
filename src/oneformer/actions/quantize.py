"""A spec with a checkpoint or exported file -> the same network in fewer bits, and a report of what that costs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.actions.around import action
from oneformer.actions.plan import Plan
from oneformer.errors import CheckpointError, SpecError, UserError, WorkError
from oneformer.runs import RunFolder, StatusLog, run_path
from oneformer.runs.atomic import write_json
from oneformer.spec.tree import to_dict

if TYPE_CHECKING:
    from oneformer.engines.base import Engine
    from oneformer.export.parity import Parity
    from oneformer.export.place import Place
    from oneformer.quantize.job import Job, Made
    from oneformer.quantize.report import Report
    from oneformer.quantize.request import Request
    from oneformer.quantize.sensitivity import Scan
    from oneformer.spec import ExperimentSpec

log = logging.getLogger(__name__)

REPORT = "report.json"


@dataclass(frozen=True)
class Backend:
    """Where a backend's work is done, and what it takes and gives."""

    module: str
    """It has `check_installed()` and `make(job)`."""
    file: str
    """Name of the file, TAO's where TAO has one."""
    takes: tuple[str, ...]
    """Engines whose files it takes; a checkpoint is exported on the way where `torch` is not the only one."""
    runs: str
    """Engine that runs both files for the comparison."""


BACKENDS = {
    "torchao": Backend("oneformer.quantize.torchao", "quantized_model_torchao.pth", ("torch",), "torch"),
    "modelopt.pytorch": Backend(
        "oneformer.quantize.modelopt_torch", "quantized_model_modelopt.pytorch.pth", ("torch",), "torch"
    ),
    "modelopt.onnx": Backend(
        "oneformer.quantize.modelopt_onnx", "quantized_model.onnx", ("onnxruntime",), "onnxruntime"
    ),
    "onnxruntime": Backend(
        "oneformer.quantize.onnxruntime", "quantized_model_onnxruntime.onnx", ("onnxruntime",), "onnxruntime"
    ),
    "openvino": Backend(
        "oneformer.quantize.openvino", "quantized_model_openvino.xml", ("openvino", "onnxruntime"), "openvino"
    ),
}


@dataclass(frozen=True)
class Quantized:
    """What was written, and what became of the network."""

    files: Sequence[Path]
    """The quantized model first."""
    report_file: Path
    report: Report

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        files = {str(file): file.stat().st_size for file in self.files}
        return {"files": files, "report_file": str(self.report_file), "report": self.report.to_dict()}

    def table(self) -> str:
        """The report, and where it and the files are."""
        files = ", ".join(str(file) for file in self.files)
        return f"{self.report.table()}\n\nwrote {files}\nreport: {self.report_file}"


@action("quantize")
def run(spec: ExperimentSpec, *, dry_run: bool = False) -> Quantized | Plan:
    """Quantize `quantize.model_path` with `quantize.backend` and compare the result with what it was made from.

    The original stays as it is. The file takes its final name after it was opened again and compared.

    Raises:
        UserError: the request cannot be fulfilled: no such mode, no layer of that name, no images, a missing extra.
        WorkError: the library failed, or the file cannot be written.
    """
    from oneformer.data.sources import fetched, planned
    from oneformer.export.place import Place
    from oneformer.quantize.request import understood

    request = understood(spec.quantize)
    source = check_source(spec)
    folder_path = run_path(spec.results_dir, "quantize", section_dir=spec.quantize.results_dir)
    target = folder_path / BACKENDS[request.backend].file
    place = Place(target, overwrite=spec.quantize.overwrite, section="quantize")
    if dry_run:
        plan, fetches = planned(spec, "quantize")
        return _plan(plan, target, fetches)
    backend = import_module(BACKENDS[request.backend].module)
    backend.check_installed()
    given, spec = spec, fetched(spec, "quantize")
    folder = RunFolder(spec.results_dir, "quantize", section_dir=spec.quantize.results_dir)
    with StatusLog(folder.status, "quantize") as status:
        folder.write_experiment(to_dict(given))
        with place:
            job = prepared(spec, request, source, place)
            log.info("quantizing %s with %s, %s", job.source.name, request.backend, request.mode)
            made: Made = backend.make(job)
            scan = scanned(spec, job, made, source) if spec.quantize.sensitivity else None
            report = compared(spec, job, made, scan, source=source)
            write_json(folder / REPORT, report.to_dict())
            done = Quantized(place.publish(made.files), folder / REPORT, report)
        status.running(f"Quantized {len(made.layers)} layers of {source.name}.", kpi=kpi(report))
    return done


def check_source(spec: ExperimentSpec) -> Path:
    """What can be said before anything is opened: a file that is there, and of a kind that the backend takes."""
    from oneformer.engines.open import checked_kind, chosen_engine
    from oneformer.model.weights.load import beside

    section = spec.quantize
    if not section.model_path:
        hint = "set quantize.model_path=results/train/oneformer_model_best.pth"
        raise SpecError("no model is named", where="quantize.model_path", hint=hint)
    path = checked_kind(section.model_path)
    if not path.exists():
        raise CheckpointError("the model does not exist", where=str(path), hint=beside(path.parent))
    takes = BACKENDS[section.backend].takes
    kind = chosen_engine(path, "auto")
    if kind not in (*takes, "torch"):
        hint = "name a checkpoint (.pth)" + {"onnxruntime": " or an exported .onnx", "openvino": ", .onnx or .xml"}.get(
            takes[0], ""
        )
        raise SpecError(f"{section.backend} does not take {path.suffix} files", where="quantize.model_path", hint=hint)
    if section.sensitivity and kind != "torch":
        what = "the sensitivity of layers is measured in PyTorch, and this is an exported file"
        hint = "name its checkpoint in quantize.model_path: it is exported on the way"
        raise SpecError(what, where="quantize.sensitivity", hint=hint)
    if section.device == "trt" and section.backend != "modelopt.onnx":
        raise SpecError(f"{section.backend} does not run on trt", where="quantize.device", hint="use cuda or cpu")
    return path


def prepared(spec: ExperimentSpec, request: Request, source: Path, place: Place) -> Job:
    """The file that the backend takes, opened in float32, and the photos it measures on."""
    from oneformer.engines.open import chosen_engine, open_engine
    from oneformer.quantize.calibrate import calibration
    from oneformer.quantize.job import Job

    backend = BACKENDS[request.backend]
    if backend.runs == "torch":
        engine = open_reference(spec, source)
    else:
        exported = chosen_engine(source, "auto") != "torch"
        source = source if exported else exported_on_the_way(spec, source, place)
        precision = "fp32" if backend.runs == "openvino" else "auto"
        engine = open_engine(source, backend.runs, precision=precision, device="cpu")
    check_float(engine, source)
    photos = calibration(spec, engine) if request.calibrates else None
    return Job(request, source, engine, photos, place.draft)


def open_reference(spec: ExperimentSpec, source: Path) -> Engine:
    """The checkpoint in float32 on `quantize.device`."""
    import torch

    from oneformer.engines.torch import TorchEngine

    device = spec.quantize.device
    device = "cpu" if device == "cuda" and not torch.cuda.is_available() else device
    return TorchEngine.from_checkpoint(source, precision="fp32", device="cpu" if device == "trt" else device)


def check_float(engine: Engine, source: Path) -> None:
    """Raise CheckpointError for a file that is quantized already."""
    from oneformer.engines.graph import GraphEngine
    from oneformer.engines.torch import TorchEngine

    twice = isinstance(engine, TorchEngine) and bool(engine.quantized)
    twice = twice or (isinstance(engine, GraphEngine) and "quantized" in engine.about.origin)
    if twice:
        raise CheckpointError("the model is quantized already", where=str(source), hint="name what it was made from")


def exported_on_the_way(spec: ExperimentSpec, source: Path, place: Place) -> Path:
    """An ONNX file in float32 of the checkpoint, beside the draft and gone with it, with the sizes of `export`.

    Raises:
        WorkError: it does not compute the same as the checkpoint, and `export.accept_parity` is off.
    """
    from oneformer.actions.export import describe
    from oneformer.engines.open import open_engine
    from oneformer.engines.torch import TorchEngine
    from oneformer.export import files

    section = replace(spec.export, format="onnx", half=False)
    files.check_installed(section.format)
    reference = open_reference(spec, source)
    assert isinstance(reference, TorchEngine)
    check_float(reference, source)
    about = describe(replace(spec, export=section), reference, source)
    target = place.folder / "float" / f"{source.stem}.onnx"
    target.parent.mkdir()
    files.write_graph(reference.model, about, section, target, simplify=section.simplify)
    parity = same_images(spec, reference, open_engine(target, device="cpu"), count=1, exact=True)
    if parity.faults and not section.accept_parity:
        hint = "oneformer export tells more; export.accept_parity=true goes on"
        raise WorkError(f"the exported graph differs: {'; '.join(parity.faults)}", where=str(source), hint=hint)
    return target


def same_images(spec: ExperimentSpec, before: Engine, after: Engine, *, count: int, exact: bool) -> Parity:
    """Both on the same images, chosen as those of `export`."""
    from oneformer.data.task import allowed_tasks
    from oneformer.export.images import choose_images
    from oneformer.export.parity import compare

    counted = replace(spec, export=replace(spec.export, parity_images=count))
    images = choose_images(counted, after.info, after.labels)
    log.info("comparing on %s", images.source)
    return compare(before, after, images, tasks=allowed_tasks(before.info.model.task_toggling), exact=exact)


def scanned(spec: ExperimentSpec, job: Job, made: Made, source: Path) -> Scan:
    """The quantized layers ranked by what rounding each alone changes in the checkpoint."""
    from oneformer.data.task import allowed_tasks
    from oneformer.engines.torch import TorchEngine
    from oneformer.export.images import choose_images
    from oneformer.quantize.network import layers_of
    from oneformer.quantize.sensitivity import IMAGES, scan

    engine = job.engine if isinstance(job.engine, TorchEngine) else open_reference(spec, source)
    assert isinstance(engine, TorchEngine)
    if job.calibration:
        images = [image for image, _ in zip(job.calibration.images(engine), range(IMAGES), strict=False)]
    else:
        counted = replace(spec, export=replace(spec.export, parity_images=IMAGES))
        images = [batch.images for batch in choose_images(counted, engine.info, engine.labels).batches]
    there = layers_of(engine)  # those of a graph have the same names
    chosen = {name: formats for name, formats in made.layers.items() if name in there}
    log.info("rounding each of %d layers alone, on %d images", len(chosen), len(images))
    return scan(engine, chosen, images, allowed_tasks(engine.info.model.task_toggling))


def compared(spec: ExperimentSpec, job: Job, made: Made, scan: Scan | None, *, source: Path) -> Report:
    """The report, from the file as it was written. Raises WorkError when it cannot be opened or computes no numbers."""
    from oneformer.engines.open import open_engine
    from oneformer.quantize.report import Report

    runs = BACKENDS[job.request.backend].runs
    try:
        precision = "auto" if runs == "onnxruntime" else "fp32"
        after = open_engine(made.files[0], runs, precision=precision, device=str(job.engine.device))
    except UserError as error:  # of a file that we have just written
        raise WorkError(f"the quantized file cannot be opened again: {error.what}", where=job.draft.name) from error
    parity = same_images(spec, job.engine, after, count=spec.quantize.compare_images, exact=False)
    broken = [fault for fault in parity.faults if "no numbers" in fault]
    if broken:
        raise WorkError(f"the quantized model is of no use: {broken[0]}", where=job.draft.name)
    return Report(job.request, source, made, parity, str(job.calibration or ""), scan)


def kpi(report: Report) -> dict[str, float]:
    """Scores after quantization, for the status lines."""
    return {name: score["after"] for name, score in report.to_dict()["scores"].items()}


def _plan(spec: ExperimentSpec, target: Path, fetches: Sequence[str]) -> Plan:
    beside = [target.with_suffix(".bin")] if target.suffix == ".xml" else []
    names = ("experiment.yaml", "status.json", REPORT)
    files = [target, *beside, *(target.with_name(name) for name in names)]
    reads = {"model": spec.quantize.model_path}
    if spec.quantize.mode == "static_ptq":
        folder = spec.dataset.quant_calibration_dataset.images_dir
        reads["photos to measure on"] = folder or str(spec.dataset.train.images)
    return Plan(reads, [str(file) for file in files], fetches)
