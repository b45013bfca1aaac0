"""A network before and after -> what became of size, time, outputs, segments and scores: report.json and its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oneformer.export.parity import Parity
from oneformer.quantize.job import Made
from oneformer.quantize.request import NATIVE, Formats, Request
from oneformer.quantize.sensitivity import Scan
from oneformer.report.tables import align

MIB = 2**20


@dataclass(frozen=True)
class Report:
    """All that is told of one quantization."""

    request: Request
    source: Path
    made: Made
    parity: Parity
    calibration: str = ""
    scan: Scan | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The content of report.json."""
        told = self.parity.to_dict()
        seconds = told["seconds_per_image"]
        return {
            **self.request.about,
            "model": self.source.name,
            "layers": {n: {"weights": f.weights, "activations": f.activations} for n, f in self.made.layers.items()},
            "kept_in_float": list(self.made.kept),
            "calibration": self.calibration,
            "size_bytes": {"before": self.made.size_before, "after": self.made.size_after},
            "seconds_per_image": {"before": seconds["reference"], "after": seconds["exported"]},
            "images": self.parity.images,
            "scores": {
                name: {"before": score["reference"], "after": score["exported"], "difference": score["difference"]}
                for name, score in told["scores"].items()
            },
            "agreement": {"pixels": told["semantic"]["same"], "segments": told["panoptic"]["same"]},
            "outputs": told["outputs"],
            "engines": {"before": self.parity.reference, "after": self.parity.other},
            **({"sensitivity": self.scan.to_dict()} if self.scan else {}),
            **self.facts,
        }

    def table(self) -> str:
        """Size, time and scores before and after; what was quantized; the scan."""
        told = self.to_dict()
        size, seconds = told["size_bytes"], told["seconds_per_image"]
        rows = [
            ("size, MiB", f"{size['before'] / MIB:.1f}", f"{size['after'] / MIB:.1f}", _times(size)),
            ("seconds per image", f"{seconds['before']:.3f}", f"{seconds['after']:.3f}", _times(seconds)),
        ]
        for name, score in told["scores"].items():
            rows.append((name, f"{score['before']:.2f}", f"{score['after']:.2f}", f"{score['difference']:+.2f}"))
        agreement = [
            ("pixels with the same class", f"{told['agreement']['pixels']:.2%}"),
            (f"panoptic segments found again (of {self.parity.segments})", f"{told['agreement']['segments']:.2%}"),
        ]
        kinds = Counter(_words(f) for f in self.made.layers.values())
        quantized = ", ".join(f"{count} layers to {kind}" for kind, count in kinds.items())
        blocks = [
            f"quantized {quantized}; {len(self.made.kept)} stay in float",
            f"measured on {self.calibration}" if self.calibration else "",
            f"compared on {self.parity.images}\n" + align(("", "before", "after", ""), rows),
            align(("agreement", ""), agreement),
            self.scan.table() if self.scan else "",
        ]
        return "\n\n".join(block for block in blocks if block)


def _times(pair: Mapping[str, float]) -> str:
    return f"x {pair['after'] / pair['before']:.2f}" if pair["before"] else ""


def _words(formats: Formats) -> str:
    inputs = "" if formats.activations == NATIVE else f" and {formats.activations} inputs"
    return f"{formats.weights} weights{inputs}"
