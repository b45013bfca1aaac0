"""A checkpoint and an image -> one picture: the image, then what the model says when asked for each of the three tasks.

python examples/picture.py      # docs/images/three-tasks.jpg, from what `make demo` left in results/demo
python examples/picture.py --checkpoint best.pth --image photo.jpg --out three.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

import oneformer
from oneformer.report.place import font

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "results/demo/train/oneformer_model_best.pth"
IMAGE = ROOT / "samples/nuclei/val/images/3874755f6222e830.png"
OUT = ROOT / "docs/images/three-tasks.jpg"
TASKS = ("semantic", "instance", "panoptic")
PANEL, GAP, HEAD = 384, 12, 34  # pixels: side of a panel, space between panels, room for a panel's title


def three_tasks(checkpoint: Path, image: Path) -> Image.Image:
    """The image and its three results side by side, each under the sentence that asked for it."""
    result = oneformer.load(checkpoint).predict(image, task=TASKS)
    photo = Image.fromarray(result.photo)
    panels = [("the image", photo), *((f"the task is {task}", result.plot(task)) for task in TASKS)]
    size = (len(panels) * (PANEL + GAP) - GAP, HEAD + PANEL)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, panel) in enumerate(panels):
        left = number * (PANEL + GAP)
        sheet.paste(panel.resize((PANEL, PANEL * panel.height // panel.width), Image.Resampling.LANCZOS), (left, HEAD))
        pen.text((left, HEAD // 2), title, fill=(40, 40, 40), font=font(18), anchor="lm")
    return sheet


def main() -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--image", type=Path, default=IMAGE)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    three_tasks(given.checkpoint, given.image).save(given.out, quality=88)
    print(f"{given.out}: {given.out.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
