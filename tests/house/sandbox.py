"""A page -> a folder in which its commands run within seconds: real images, few of them, and small networks."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from house.look_automl import pretending
from house.pages import ROOT, Block, Page, lines_of
from oneformer import cli
from oneformer.data.labels import read_labels
from oneformer.spec.data import DatasetSpec
from stand_in import stand_in
from story.tiny_model import TINY, write_tiny_checkpoint
from trt.fake_library import fake_library, on_the_cpu
from trt.small_graph import described_with, small_onnx
from two_layers import two_layers

ENGINE = ".engine"  # names a TensorRT engine
# Command -> what its work is replaced by: trials that pretend to train, a network that is traced within a moment.
AROUND = {"automl": pretending, "export": two_layers}
KEPT = "3874755f6222e830"  # the validation image that the pages name
IMAGES = 3
# Laid over what a page says: sizes, nothing that its commands are about.
SMALL = (
    *(word for word in TINY if not word.startswith(("preset=", "model.sem_seg_head.num_classes", "model.test."))),
    "model.sem_seg_head.transformer_enc_layers=1", "model.one_former.nheads=4", "model.one_former.class_dec_layers=1",
    "model.one_former.train_num_points=64", "model.text_encoder.n_ctx=4", "model.backbone.name=D2SwinTransformer",
    "model.backbone.swin.drop_path_rate=0.0", "dataset.augmentation.train_crop_size=[64,64]",
    "dataset.train.num_workers=0", "dataset.val.num_workers=0", "dataset.test.num_workers=0",
    "train.accelerator=cpu", "train.num_epochs=1", "train.iters_per_epoch=1", "train.precision=fp32",
    "evaluate.accelerator=cpu", "evaluate.report_images=2", "inference.accelerator=cpu",
)  # fmt: skip


def write_sandbox(folder: Path, page: Page, *, data: bool = True) -> None:
    """The specs that a page names, and with `data` small data sets and a checkpoint at the usual places."""
    shutil.copytree(ROOT / "specs", folder / "specs")
    for block in page.blocks:
        named = re.match(r"# ([\w./-]+\.ya?ml)\n", block.text)
        if block.language == "yaml" and named:
            (folder / named[1]).write_text(block.text, encoding="utf-8")
    if not data:
        return
    for split in ("train", "val"):
        source = ROOT / "samples" / "nuclei" / split
        for target in (folder / "samples" / "nuclei" / split, folder / "data" / split):
            copy_part(source, target)
    label_map = folder / "samples" / "nuclei" / "train" / "label_map.json"
    shutil.copy(label_map, folder / "data" / "label_map.json")
    shutil.copytree(folder / "samples" / "nuclei" / "val" / "images", folder / "photos")
    labels = read_labels(DatasetSpec(label_map=str(label_map)), splits=())
    words = [*SMALL, f"model.sem_seg_head.num_classes={labels.num_classes}"]
    write_tiny_checkpoint(folder / "results/demo/train/oneformer_model_best.pth", *words, labels=labels)
    if ENGINE in page.text and not any(words[:2] == ["oneformer", "export"] for words in page.commands()):
        small_onnx(folder / "results/export/model.onnx", said=described_with(labels))
    if "weights/coco_swin_large.pth" in page.text:
        write_foreign_weights(folder / "weights")


def write_foreign_weights(folder: Path) -> None:
    """Small networks in the files of others."""
    from model.weights.foreign import label_map, write_shi, write_tao

    folder.mkdir()
    write_shi(folder / "coco_swin_large.pth")
    write_tao(folder / "tao.pth")
    label_map(folder)


def copy_part(source: Path, target: Path) -> None:
    """A few images of a data set with their masks and annotations."""
    content = json.loads((source / "annotations.json").read_text(encoding="utf-8"))
    wanted = sorted(content["images"], key=lambda image: not image["file_name"].startswith(KEPT))[:IMAGES]
    ids = {image["id"] for image in wanted}
    content |= {"images": wanted, "annotations": [a for a in content["annotations"] if a["image_id"] in ids]}
    for folder, entries in (("images", wanted), ("panoptic", content["annotations"])):
        (target / folder).mkdir(parents=True)
        for entry in entries:
            shutil.copy(source / folder / entry["file_name"], target / folder)
    (target / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    if (source / "label_map.json").is_file():
        shutil.copy(source / "label_map.json", target)


@contextmanager
def engines() -> Iterator[None]:
    """While open, TensorRT is its stand-in, and its GPU the CPU."""
    with stand_in("tensorrt", fake_library()), on_the_cpu():
        yield


@dataclass
class Sandbox:
    """Runs a page's blocks in a folder that the caller has gone to."""

    folder: Path
    page: Page

    def has_work(self) -> bool:
        """Whether anything on the page can be run."""
        return any(b.language == "python" or "oneformer" in b.text for b in self.page.blocks if b.language)

    def write(self) -> None:
        """Make the folder ready."""
        write_sandbox(self.folder, self.page)

    def run(self, block: Block) -> str:
        """Run one block; what failed, or nothing."""
        with engines() if ENGINE in self.page.text else nullcontext():
            return self.run_here(block)

    def run_here(self, block: Block) -> str:
        """The same, with what is installed at the moment."""
        if block.language == "python":
            exec(compile(block.text, self.page.name, "exec"), {})
        if block.language != "bash":
            return ""
        for line in lines_of(block):
            program, *words = shlex.split(line, comments=True) or [""]
            if program == "oneformer":
                verb = words[0]
                on_spec = words[:2] in (["jobs", "submit"], ["jobs", "pipeline"]) or (
                    verb in cli.VERBS and cli.VERBS[verb].takes_spec
                )
                small = SMALL if on_spec or verb == "automl" else ()
                with AROUND.get(verb, nullcontext)():
                    code = cli.main([*words, *small])
                if code != cli.DONE:
                    return f"{line}: exit code {code}"
        return ""
