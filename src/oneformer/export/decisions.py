"""An exported file -> the places its masked attention closed, and a network that closes the same ones.

Masked attention asks of every place whether a mask is negative (Mask2Former, arXiv:2112.01527, section 3.2.1). Where
the mask is zero but for rounding, two correct programs answer differently, and one answer moves the outputs of a query
by far more than rounding does. So outputs are compared twice: as they are, and, where that is not enough, with the
same answers on both sides (docs/decisions/0010-parity-and-masked-attention.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from oneformer.engines.about import INPUTS, OUTPUTS
from oneformer.engines.graph import GraphEngine
from oneformer.engines.onnxruntime import OnnxRuntimeEngine, session_options
from oneformer.engines.openvino import HINTS, OpenvinoEngine, imported, read_model
from oneformer.engines.program import ProgramEngine
from oneformer.model.decoder import Decoder
from oneformer.runs.encrypt import opened
from oneformer.segments import Outputs

ASKS = "decoder/Less"  # name of the nodes that compare masks with zero, of one for each layer (onnx.py names them)

Run = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""A whole batch of images and task tokens -> class logits, mask logits, and for each layer the closed places."""


class Told(NamedTuple):
    """What a file computes, and where its queries could not look."""

    outputs: Outputs
    closed: list[Tensor]  # bool (B, Q, h_l*w_l) for each layer


@dataclass
class Decisions:
    """How often two programs closed different places."""

    places: int = 0
    differ: int = 0
    farthest: float = 0.0
    """The largest mask logit, of either sign, at a place where they differ."""

    def join(self, more: Decisions) -> None:
        """Count what another one counted."""
        self.places += more.places
        self.differ += more.differ
        self.farthest = max(self.farthest, more.farthest)


class Teller:
    """The graph of an engine once more, with the closed places as further outputs.

    Raises:
        LookupError: nothing is known of the decisions of this kind of file, or they are not in it.
    """

    def __init__(self, engine: GraphEngine) -> None:
        self.engine = engine
        for kind, made in MAKERS.items():
            if isinstance(engine, kind):
                self.run: Run = made(engine)
                return
        raise LookupError(f"{engine} does not tell its decisions")

    def __call__(self, images: Tensor, task: str) -> Told:
        """Normalised images (B, 3, H, W), no more than the graph takes at once -> what it makes of them."""
        taken = self.engine.filled(self.engine.as_input(images), self.engine.task_tokens[task])
        classes, masks, *closed = (value[: len(images)].cpu() for value in self.run(*taken))
        return Told(Outputs(classes.float(), masks.float()), closed)


def _of_onnxruntime(engine: OnnxRuntimeEngine) -> Run:
    import onnx
    import onnxruntime

    with opened(engine.path) as file:
        model = onnx.load(file, load_external_data=False)
    names = [node.output[0] for node in model.graph.node if node.name.startswith(ASKS)]
    _check_found(names, engine)
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.BOOL, None) for n in names)
    settings = session_options(engine.session.get_session_options().intra_op_num_threads)
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(engine.path.parent))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=engine.session.get_providers()
    )

    def run(*taken: Tensor) -> Sequence[Tensor]:
        feed = dict(zip(INPUTS, (value.cpu().numpy() for value in taken), strict=True))
        return [torch.from_numpy(value) for value in session.run([*OUTPUTS, *names], feed)]

    return run


def _of_openvino(engine: OpenvinoEngine) -> Run:
    core = imported(needed_for=f"running {engine.path.name}").Core()
    model = read_model(core, engine.path)
    found = [node.output(0) for node in model.get_ordered_ops() if node.get_friendly_name().startswith(ASKS)]
    _check_found(found, engine)
    model.add_outputs(found)
    settings = {"INFERENCE_PRECISION_HINT": HINTS["fp32"], "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_NUM_THREADS"] = str(engine.compiled.get_property("INFERENCE_NUM_THREADS"))
    compiled = core.compile_model(model, "CPU", settings)
    given = [*map(compiled.output, OUTPUTS), *compiled.outputs[len(OUTPUTS) :]]

    def run(*taken: Tensor) -> Sequence[Tensor]:
        answer = compiled(dict(zip(INPUTS, (value.cpu().numpy() for value in taken), strict=True)))
        return [torch.from_numpy(answer[output].copy()) for output in given]

    return run


def _of_program(engine: ProgramEngine) -> Run:
    queries = engine.info.model.one_former.num_object_queries
    less = torch.ops.aten.lt.Scalar
    asks = [
        node
        for node in engine.module.graph.nodes
        if node.target is less and node.args[1] == 0 and tuple(node.meta["val"].shape)[1:2] == (queries,)
    ]
    _check_found(asks, engine)

    class Listening(fx.Interpreter):
        """Keeps what the comparisons gave."""

        def __init__(self) -> None:
            super().__init__(engine.module)
            self.closed: list[Tensor] = []

        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in asks:
                self.closed.append(value)
            return value

    @torch.inference_mode()
    def run(*taken: Tensor) -> Sequence[Tensor]:
        listening = Listening()
        classes, masks = listening.run(*(value.to(engine.device) for value in taken))
        return [classes, masks, *listening.closed]

    return run


MAKERS: dict[type[GraphEngine], Callable[[Any], Run]] = {
    OnnxRuntimeEngine: _of_onnxruntime,
    OpenvinoEngine: _of_openvino,
    ProgramEngine: _of_program,
}


def _check_found(asks: Sequence[object], engine: GraphEngine) -> None:
    layers = engine.info.model.one_former.dec_layers - 1
    if len(asks) != layers:
        raise LookupError(f"{engine.path.name} has {len(asks)} comparisons of masks with zero, {layers} were expected")


@contextlib.contextmanager
def following(decoder: Decoder, closed: Sequence[Tensor]) -> Iterator[Decisions]:
    """While open, the decoder's next run closes these places in the place of its own.

    Args:
        decoder: of the network that follows.
        closed: bool (B, Q, h_l*w_l) for each layer.

    Yields:
        How often the decoder itself would have decided otherwise, and at masks how large.
    """
    found = Decisions()
    coming = iter(closed)
    own = decoder.closed_places

    def theirs(masks: Tensor) -> Tensor:
        answer = next(coming).to(masks.device)
        other = answer != own(masks)
        found.places += other.numel()
        found.differ += int(other.sum())
        found.farthest = max(found.farthest, float(masks.abs().where(other, 0).max()))
        return answer

    decoder.closed_places = theirs  # type: ignore[method-assign]
    try:
        yield found
    finally:
        del decoder.closed_places
