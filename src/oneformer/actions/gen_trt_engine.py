"""A spec with an exported ONNX file -> a TensorRT engine, its description, and the proof that it finds the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.actions.around import action
from oneformer.actions.plan import Plan
from oneformer.errors import CheckpointError, SpecError, UserError, WorkError
from oneformer.runs import RunFolder, StatusLog, run_path
from oneformer.runs.atomic import write_json
from oneformer.runs.by_name import by_name
from oneformer.spec.tree import to_dict

if TYPE_CHECKING:
    from torch import Tensor

    from oneformer.engines.base import Engine as Runner
    from oneformer.engines.tensorrt_file import Built
    from oneformer.engines.tensorrt_library import Library
    from oneformer.export.parity import Parity
    from oneformer.export.place import Place
    from oneformer.spec import ExperimentSpec
    from oneformer.trt.build import Engine, Wish
    from oneformer.trt.graph import Graph
    from oneformer.trt.prepare import Prepared

log = logging.getLogger(__name__)

BUILD, PARITY = "build.json", "parity.json"
ENDINGS = (".engine", ".plan")
MIB = 2**20
# Shares of pixels that keep their class and of segments that find their partner: at least so many. Those of 16 bits are
# export's; 8 bits move some borders, and here and there a segment that is just found.
LEAST = {"fp32": (0.99, 0.95), "fp16": (0.99, 0.95), "bf16": (0.99, 0.95), "int8": (0.98, 0.85), "fp8": (0.98, 0.85)}


@dataclass(frozen=True)
class Proof:
    """How the ONNX file and what became of it compare."""

    compared: str
    """`engine`; `graph`, the one the engine was built from, run by ONNX Runtime; or empty: nothing was compared."""
    parity: Parity | None = None
    why: str = ""
    """Why it was not the engine."""
    least: tuple[float, float] = (0.0, 0.0)

    @property
    def faults(self) -> list[str]:
        """Why it is not the same, in words; empty when it is, or nothing was compared."""
        if self.parity is None:
            return []
        shares = {
            "pixels with the same class": (self.parity.semantic_agreement, self.least[0]),
            "segments with a partner": (self.parity.panoptic_agreement, self.least[1]),
        }
        return [f"{what}: {has:.2%}, needed are {least:.0%}" for what, (has, least) in shares.items() if has < least]

    def to_dict(self) -> dict[str, Any]:
        """The content of parity.json."""
        told = self.parity.to_dict() if self.parity else {}
        verdict = {"passed": not self.faults if self.parity else None, "faults": self.faults}
        return {**told, "compared": self.compared, "not_the_engine_because": self.why, **verdict}


@dataclass(frozen=True)
class EngineBuilt:
    """What was written, from what, and how it compares."""

    files: Sequence[Path]
    """The engine first."""
    facts: dict[str, Any]
    """The content of build.json."""
    proof: Proof
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {"files": {str(f): f.stat().st_size for f in self.files}, **self.facts, "parity": self.proof.to_dict()}

    def table(self) -> str:
        """Files, what the engine takes, and how it compares."""
        from oneformer.report.tables import align

        facts, proof = self.facts, self.proof
        files = [(str(file), f"{file.stat().st_size / MIB:.1f}") for file in self.files]
        takes = [(n, *(" x ".join(map(str, size)) for size in sizes)) for n, sizes in facts["profile"].items()]
        counted = ", ".join(f"{count} in {name}" for name, count in facts["products"].items())
        lines = [
            f"{facts['library']} {facts['version']}, {facts['layers']} layers, built in {facts['seconds']:.1f} s",
            f"products: {counted or 'as the ONNX file says'}",
            f"GPUs: compute capability {', '.join(facts['gpus']) if facts['gpus'] else '(those of the library)'}",
        ]
        blocks = [align(("file", "MiB"), files), "\n".join(lines)]
        blocks.append(align(("input", "smallest", "usual", "largest"), takes))
        if proof.parity is None:
            blocks.append(f"parity: not compared, {proof.why}")
            return "\n\n".join(blocks)
        told = proof.parity.to_dict()
        share = [
            ("pixels with the same class", f"{told['semantic']['same']:.4%}"),
            (f"panoptic segments found again (of {told['panoptic']['segments']})", f"{told['panoptic']['same']:.4%}"),
        ]
        head = "the engine" if proof.compared == "engine" else f"the engine's graph, not the engine: {proof.why}"
        blocks.append(f"compared on {proof.parity.images}: {head}\n" + align(("agreement", ""), share))
        verdict = "; ".join(proof.faults)
        blocks.append(
            f"parity: {'NOT the same, accepted: ' + verdict if verdict else 'the same'} ({self.folder / PARITY})"
        )
        return "\n\n".join(blocks)


@action("gen_trt_engine")
def run(spec: ExperimentSpec, *, dry_run: bool = False) -> EngineBuilt | Plan:
    """Build `gen_trt_engine.onnx_file` into an engine and compare the two.

    The engine takes its final name when it is complete; until then it lies in a folder of another name, which is
    removed whatever happens. Without a GPU an engine cannot be run: then the graph that it was built from, with all its
    conversions, is compared on the processor.

    Raises:
        UserError: the request cannot be fulfilled: no ONNX file, no library, a file in the way.
        WorkError: the library cannot build it, or it does not find the same.
    """
    from oneformer.data.sources import fetched, planned
    from oneformer.engines.tensorrt_library import find_library
    from oneformer.export.place import Place

    section = spec.gen_trt_engine
    folder_path = run_path(spec.results_dir, "gen_trt_engine", section_dir=section.results_dir)
    target = Path(section.trt_engine) if section.trt_engine else folder_path / "model.engine"
    onnx_file = check_request(spec, target)
    place = Place(target, overwrite=section.overwrite, section="gen_trt_engine")
    if dry_run:
        plan, fetches = planned(spec, "gen_trt_engine")
        return replace(_plan(plan, folder_path, target), fetches=fetches)
    library = find_library(section.library, needed_for="oneformer gen_trt_engine")
    folder = RunFolder(spec.results_dir, "gen_trt_engine", section_dir=section.results_dir)
    with StatusLog(folder.status, "gen_trt_engine") as status:
        folder.write_experiment(to_dict(spec))
        spec = fetched(spec, "gen_trt_engine")
        with place:
            files, facts, proof = make(spec, library, onnx_file, place)
            write_json(folder / PARITY, proof.to_dict())
            if proof.faults and not section.accept_parity:
                raise WorkError(
                    f"the engine does not find the same: {'; '.join(proof.faults)}",
                    where=str(target),
                    hint=f"it was not kept; see {folder / PARITY}, or keep it with gen_trt_engine.accept_parity=true",
                )
            done = EngineBuilt(place.publish(files), facts, proof, folder.path)
        write_json(folder / BUILD, facts)
        status.running(f"Built {target.name}.", kpi={"layers": float(facts["layers"]), "MiB": facts["bytes"] / MIB})
    return done


def check_request(spec: ExperimentSpec, target: Path) -> Path:
    """What can be said before anything is opened: an ONNX file that is there, fitting endings. Returns the file."""
    from oneformer.model.weights.load import beside

    section = spec.gen_trt_engine
    if not section.onnx_file:
        raise SpecError(
            "no ONNX file is named",
            where="gen_trt_engine.onnx_file",
            hint="set gen_trt_engine.onnx_file=results/export/model.onnx, which oneformer export writes",
        )
    file = Path(section.onnx_file)
    if not file.is_file():
        raise CheckpointError("the ONNX file does not exist", where=str(file), hint=beside(file.parent))
    if file.suffix.lower() != ".onnx":
        raise SpecError(
            "engines are built from ONNX files",
            where=f"gen_trt_engine.onnx_file ({file})",
            hint=f"oneformer export export.checkpoint={file} writes one",
        )
    if target.suffix.lower() not in ENDINGS:
        raise SpecError(
            f"an engine ends in {' or '.join(ENDINGS)}, not in {target.suffix or 'nothing'}",
            where="gen_trt_engine.trt_engine",
            hint=f"for example {target.with_suffix(ENDINGS[0])}",
        )
    return file


def make(
    spec: ExperimentSpec, library: Library, onnx_file: Path, place: Place
) -> tuple[list[Path], dict[str, Any], Proof]:
    """Type the graph, build it into the draft, describe it and compare. Returns the files, build.json and the proof."""
    from oneformer.engines.tensorrt_file import beside, description
    from oneformer.trt.build import build
    from oneformer.trt.graph import read_graph
    from oneformer.trt.prepare import prepare

    section = spec.gen_trt_engine
    graph = read_graph(onnx_file)
    wish = wished(spec, graph)
    prepared = prepare(graph, section.tensorrt, lambda: photos(spec, graph), folder=place.folder)
    graph = replace(graph, model=None)  # its weights are in the file, and the builder has its own
    log.info("building with %s", library.told)
    with on_gpu(section.gpu_id):
        engine = build(library, prepared.file, wish)
    with by_name(place.draft) as draft:
        draft.write_bytes(engine.plan)
        built = built_of(library, engine, wish, draft)
    data_type = section.tensorrt.data_type
    about = replace(graph.about, precision=graph.about.precision if graph.quantized else data_type)
    text = write_json(beside(place.draft), description(about, built))
    proof = prove(spec, graph, prepared, place, wish=wish)
    facts = {
        **built.to_dict(),
        "onnx_file": str(onnx_file),
        "data_type": about.precision,
        "products": prepared.products,
        "layers": engine.layers,
        "seconds": engine.seconds,
        "workspace_mib": wish.workspace_mib,
        "compared": proof.compared,
    }
    return [place.draft, text], facts, proof


def wished(spec: ExperimentSpec, graph: Graph) -> Wish:
    """What the builder is told."""
    from oneformer.trt.build import Wish
    from oneformer.trt.profile import profile

    section, limits = spec.gen_trt_engine, spec.gen_trt_engine.tensorrt
    return Wish(
        profile=profile(graph.ports, graph.about, section),
        workspace_mib=limits.workspace_size,
        gpus=tuple(limits.gpus),
        timing_cache=Path(section.timing_cache) if section.timing_cache else None,
        exact=limits.data_type == "fp32",
        verbose=section.verbose,
    )


def built_of(library: Library, engine: Engine, wish: Wish, file: Path) -> Built:
    """How the engine in this file was built."""
    from oneformer.engines.tensorrt_file import Built

    size = file.stat().st_size
    return Built(
        library.name, library.version, size, engine.inputs, engine.outputs, dict(wish.profile), gpus=engine.gpus
    )


def photos(spec: ExperimentSpec, graph: Graph) -> Iterator[Tensor]:
    """The photos that ranges are measured on, one by one, as the network sees them. Raises SpecError without any."""
    from oneformer.data.decode import read_image
    from oneformer.export.images import ready
    from oneformer.predict.files import find_images

    limits = spec.gen_trt_engine.tensorrt
    folder = limits.calibration_dir or spec.inference.images_dir
    if not folder:
        raise SpecError(
            f"{limits.data_type} measures how far values reach, and no photos are named for it",
            where="gen_trt_engine.tensorrt.calibration_dir",
            hint="name a folder of some dozens of photos like those the engine will see",
        )
    height, width = (
        graph.ports.inputs["images"][1:3] if graph.about.embed_preprocess else graph.ports.inputs["images"][2:]
    )
    size = (height, width) if height and width else None
    info = replace(graph.about.info, input_size=size)
    found = find_images(folder)
    log.info("measuring on %d photos of %s", min(limits.calibration_images, len(found.files)), folder)
    for name in islice(found.files, limits.calibration_images):
        yield ready(read_image(found.root / name), info, name=name).images


def prove(spec: ExperimentSpec, graph: Graph, prepared: Prepared, place: Place, *, wish: Wish) -> Proof:
    """Compare the ONNX file with the engine where there is a GPU for it, else with the graph it was built from."""
    from oneformer.engines.open import open_engine

    section = spec.gen_trt_engine
    _, usual, _ = wish.profile["images"]
    height, width = usual[1:3] if graph.about.embed_preprocess else usual[2:]
    frame = (int(height or 0), int(width or 0))
    least = LEAST["int8" if graph.quantized else section.tensorrt.data_type]
    try:
        reference = open_engine(graph.path, "onnxruntime", device="cpu")
    except UserError as error:
        return Proof("", why=error.what)
    why = "there is no GPU here"
    if has_gpu():
        try:
            engine = open_engine(place.draft, device=f"cuda:{section.gpu_id}")
            return Proof("engine", compared(spec, reference, engine, frame=frame), least=least)
        except CheckpointError as error:  # it was built for other GPUs
            why = error.what
    if not prepared.changed:
        return Proof("", why=f"{why}, and the engine's graph is the ONNX file itself")
    try:
        typed = open_engine(prepared.file, "onnxruntime", device="cpu")
    except CheckpointError as error:
        return Proof("", why=f"{why}, and ONNX Runtime does not run the engine's graph ({error.what})")
    return Proof("graph", compared(spec, reference, typed, frame=frame), why, least)


def compared(spec: ExperimentSpec, reference: Runner, engine: Runner, *, frame: tuple[int, int]) -> Parity:
    """Both on the same images, fitted into this height and width, and on all tasks."""
    from oneformer.data.task import allowed_tasks
    from oneformer.export.images import choose_images
    from oneformer.export.parity import compare

    section = spec.gen_trt_engine
    where = replace(spec.export, parity_images=section.parity_images, parity_images_dir=section.parity_images_dir)
    info = replace(engine.info, input_size=frame)
    images = choose_images(replace(spec, export=where), info, engine.labels)
    log.info("comparing %s with the ONNX file on %s", engine, images.source)
    return compare(reference, engine, images, tasks=allowed_tasks(engine.info.model.task_toggling), exact=False)


def has_gpu() -> bool:
    """Whether engines can be run here."""
    import torch

    return torch.cuda.is_available()


def on_gpu(number: int) -> Any:
    """While open, libraries see this GPU first. Raises SpecError when there are GPUs, but not this one."""
    import contextlib

    import torch

    if not has_gpu():
        return contextlib.nullcontext()
    if number >= torch.cuda.device_count():
        hint = f"GPUs are numbered 0 to {torch.cuda.device_count() - 1}"
        raise SpecError(f"there is no GPU {number}", where="gen_trt_engine.gpu_id", hint=hint)
    return torch.cuda.device(number)


def _plan(spec: ExperimentSpec, folder: Path, target: Path) -> Plan:
    from oneformer.engines.tensorrt_file import beside

    section = spec.gen_trt_engine
    reads = {"ONNX file": section.onnx_file}
    if section.tensorrt.data_type in ("int8", "fp8"):
        reads["photos to measure on"] = section.tensorrt.calibration_dir or spec.inference.images_dir
    if section.timing_cache:
        reads["timing cache"] = f"({section.timing_cache}, begun when it is not there)"
    names = ("experiment.yaml", "status.json", BUILD, PARITY)
    cache = [section.timing_cache] if section.timing_cache else []
    return Plan(reads, [str(target), str(beside(target)), *cache, *(str(folder / name) for name in names)])
