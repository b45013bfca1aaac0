"""A graph, a data type and the user's rules -> the precision of each of its products.

Engines are strongly typed: the graph says in which format each product is computed, and TensorRT keeps to it. Norms,
softmax, the sampling of maps and residual sums stay in float32 whatever is asked. So do the parts that `export/half.py`
names, unless a rule speaks of them: the task MLP, and where the deformable attention looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from oneformer.errors import SpecError, UserErrors
from oneformer.export.half import KEPT, PRODUCTS

KEY = "gen_trt_engine.tensorrt.layers_precision"
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
QUANTIZED = ("int8", "fp8")
BETWEEN = "fp16"  # of products that are not quantized
# Parts that lose too much in 8 bits and cost little in 16. Of the segments that `make demo`'s network finds on four
# photos of samples/nuclei/val, int8 keeps 88 % with the decoder and 96 % without; fp8, which has three bits behind the
# point, keeps 8 % in everything, 55 % without decoder and convolutions, and 98 % in the backbone's matrices only.
WIDER = {"int8": ("decoder.",), "fp8": ("decoder.", "pixel_decoder.")}
WIDER_OPERATORS = {"int8": (), "fp8": ("Conv",)}
MARKS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Rule:
    """One entry of `layers_precision`."""

    pattern: str
    precision: str

    def fits(self, name: str) -> bool:
        """Whether it speaks of the product: its name, a part of the network that holds it, or a pattern with `*`."""
        return fnmatchcase(name, self.pattern) or name.startswith((f"{self.pattern}/", f"{self.pattern}."))


def rules(entries: Sequence[Any]) -> list[Rule]:
    """The entries `name:precision`, or mappings of names to precisions. Raises UserErrors for all that are neither."""
    found, wrong = [], []
    for entry in entries:
        pairs = entry.items() if isinstance(entry, dict) else [str(entry).rpartition(":")[::2]]
        for pattern, said in pairs:
            precision = str(said).strip().lower()
            if pattern and precision in PRECISIONS:
                found.append(Rule(str(pattern).strip(), precision))
            else:
                hint = f"write name:precision, the precision one of {', '.join(PRECISIONS)}"
                wrong.append(SpecError(f"{entry!r} is no layer with a precision", where=KEY, hint=hint))
    if wrong:
        raise UserErrors(wrong)
    return found


def products(model: Any) -> list[Any]:
    """The nodes that multiply matrices, in the order of the graph."""
    return [node for node in model.graph if node.op_type in PRODUCTS]


def is_quantized(model: Any) -> bool:
    """Whether the graph says itself what is rounded to 8 bits."""
    return any(node.op_type in MARKS for node in model.graph)


def may_quantize(node: Any) -> bool:
    """Whether a product has a constant factor, whose range is known."""
    return len(node.inputs) > 1 and node.inputs[1] is not None and node.inputs[1].name in node.graph.initializers


def precisions(model: Any, data_type: str, entries: Sequence[Any]) -> dict[str, str]:
    """Name of each product -> its precision; later rules win.

    Args:
        model: an `onnx_ir.Model` whose nodes have the names that `oneformer export` gave them.
        data_type: one of `PRECISIONS`.
        entries: `gen_trt_engine.tensorrt.layers_precision`.

    Raises:
        UserErrors: entries that cannot be understood, fit no product, or ask for 8 bits where that cannot be.
    """
    given = rules(entries)
    nodes = {node.name: node for node in products(model)}
    chosen = {name: usual(node, data_type) for name, node in nodes.items()}
    wrong = []
    for rule in given:
        fitting = [name for name in nodes if rule.fits(name)]
        if not fitting:
            near = get_close_matches(rule.pattern, nodes, n=3, cutoff=0.4) or list(nodes)[:3]
            what = f"no product of the graph is named {rule.pattern!r}"
            wrong.append(SpecError(what, where=KEY, hint=f"names with * fit several; there are {', '.join(near)}"))
        able = [name for name in fitting if rule.precision not in QUANTIZED or may_quantize(nodes[name])]
        if fitting and not able:
            what = f"{rule.pattern!r} cannot be computed in {rule.precision}: it multiplies two results"
            wrong.append(SpecError(what, where=KEY, hint="use fp16, bf16 or fp32"))
        chosen |= dict.fromkeys(able, rule.precision)
    if wrong:
        raise UserErrors(wrong)
    return chosen


def usual(node: Any, data_type: str) -> str:
    """The precision of a product that no rule speaks of."""
    if any(part in node.name for part in KEPT):
        return "fp32"
    if data_type not in QUANTIZED:
        return data_type
    wider = node.name.startswith(WIDER[data_type]) or node.op_type in WIDER_OPERATORS[data_type]
    return BETWEEN if wider or not may_quantize(node) else data_type


def counts(chosen: dict[str, str]) -> dict[str, int]:
    """How many products have each precision."""
    found = Counter(chosen.values())
    return {precision: found[precision] for precision in PRECISIONS if found[precision]}
