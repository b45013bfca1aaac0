"""The spec tree, the table of commands and the written documents -> every file of the skill folder, as text."""

from __future__ import annotations

import json
import re
from pathlib import Path

from oneformer.runs.editor import MARK
from oneformer.schema.inputs import ACTIONS
from oneformer.schema.json_schema import as_text, json_schema
from oneformer.schema.tao_schema import manifest, tao_schema
from oneformer.schema.templates import required, template
from oneformer.skill.info import DEPLOY, as_yaml, deploy_info, skill_info
from oneformer.skill.tables import TABLES
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.tree import leaves
from oneformer.spec.write import to_yaml

SOURCE = Path(__file__).resolve().parent.parent / "assets" / "skill"
SCHEMA = "references/oneformer.schema.json"
# Written document -> where it stands in the folder.
DOCUMENTS = {"SKILL.md": "SKILL.md", "deploy.md": "references/deploy.md"}
_TABLE = re.compile(r"^<!-- table: ([a-z ]+) -->\n", re.MULTILINE)
# Keys of the templates for engines; of each section named here all keys.
_DEPLOY_KEYS: dict[str, tuple[str, ...]] = {
    "gen_trt_engine": ("results_dir", "gen_trt_engine"),
    "evaluate": (
        "results_dir", "dataset.label_map", "dataset.val.annotations", "dataset.val.images", "dataset.val.panoptic",
        "dataset.val.batch_size", "dataset.val.num_workers", "evaluate.trt_engine", "evaluate.batch_size",
        "evaluate.task",
    ),
    "inference": (
        "results_dir", "inference.trt_engine", "inference.images_dir", "inference.batch_size", "inference.mode",
        "inference.overlay",
    ),
}  # fmt: skip


def files(name: str) -> dict[str, str]:
    """Path in the folder -> what it holds; the same for the same version and name."""
    found = {target: document(source, name) for source, target in DOCUMENTS.items()}
    for action in ACTIONS:
        found[f"schemas/{action}.schema.json"] = _json(tao_schema(action))
        found[f"references/spec_template_{action}.yaml"] = _near(template(action))
        found[f"references/spec_minimal_{action}.yaml"] = _near(template(action, minimal=True))
    found["schemas/manifest.json"] = _json(manifest())
    found[SCHEMA] = as_text(json_schema())
    for action in DEPLOY:
        found[f"references/spec_template_deploy_{action}.yaml"] = _deploy(action)
    found["references/skill_info.yaml"] = as_yaml(skill_info(name))
    found["references/deploy.skill_info.yaml"] = as_yaml(deploy_info(name))
    return dict(sorted(found.items()))


def document(source: str, name: str) -> str:
    """A written document with its tables filled in."""
    text = (SOURCE / source).read_text(encoding="utf-8").replace("name: oneformer\n", f"name: {name}\n", 1)
    return _TABLE.sub(lambda found: TABLES[found[1]](), text)


def _json(tree: dict[str, object]) -> str:
    return json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _near(text: str) -> str:
    """A template whose first line names the schema beside it, not that of this installation."""
    return f"{MARK}{Path(SCHEMA).name}\n{text.partition(chr(10))[2]}"


def _deploy(action: str) -> str:
    said = f"# What oneformer {action} needs for a TensorRT engine.\n"
    wanted = _DEPLOY_KEYS[action]
    keys = [key for key in leaves() if any(key == one or key.startswith(f"{one}.") for one in wanted)]
    notes = {key: note.partition(", or ")[0].rstrip(".") + "." for key, note in required(action).items()}
    engine = f"{action}.trt_engine"
    if action != "gen_trt_engine":
        notes[engine] = "Required."
    return f"{MARK}{Path(SCHEMA).name}\n{said}" + to_yaml(ExperimentSpec(), keys=keys, notes=notes)
