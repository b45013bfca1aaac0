"""TAO's schemas, copied as facts into tao_leaves.json, against our tree: same keys, defaults, bounds and marks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from oneformer.schema.differences import differences
from oneformer.spec.check import alternatives, parts
from oneformer.spec.field import Tao
from oneformer.spec.load import load
from oneformer.spec.tree import leaves

HERE = Path(__file__).resolve().parent
TAO: dict[str, dict[str, Any]] = json.loads((HERE / "tao_leaves.json").read_text(encoding="utf-8"))
DECISION = HERE.parents[1] / "docs" / "decisions" / "0001-defaults-that-differ-from-tao.md"
# The one list of differences, each with its reason (`schema/tao_differences.json`).
DIFFERENT_DEFAULTS = {key for key, said in differences().items() if "default" in said}
DIFFERENT_BOUNDS = {key for key, said in differences().items() if "maximum" in said}
# Keys that TAO's code reads and its packaged schema lost, with their defaults there.
BEYOND_THE_SCHEMA = {
    "train.val_check_interval": 1.0,
    "train.clip_grad_norm_type": 2.0,
    "model.backbone.dinat.embed_dim": 192,
    "model.backbone.dinat.mlp_ratio": 2.0,
    "model.backbone.dinat.depths": [3, 4, 18, 5],
    "model.backbone.dinat.num_heads": [6, 12, 24, 48],
    "model.backbone.dinat.kernel_size": 7,
    "model.backbone.dinat.drop_path_rate": 0.3,
    "model.backbone.dinat.dilations": None,
    "model.backbone.dinat.out_features": ["res2", "res3", "res4", "res5"],
    "model.backbone.dinat.out_indices": [0, 1, 2, 3],
    "model.backbone.dinat.use_checkpoint": False,
    "dataset.train.names": "",
    "dataset.val.names": "",
    "dataset.test.names": "",
}
KINDS = {"int": int, "float": float, "bool": bool, "string": str, "list": list, "collection": dict}


def bounds(key: str) -> tuple[float | None, float | None, bool]:
    marks = parts(leaves()[key].annotation)[1]
    low = next((m.ge if isinstance(m, Ge) else m.gt for m in marks if isinstance(m, Ge | Gt)), None)
    high = next((m.le if isinstance(m, Le) else m.lt for m in marks if isinstance(m, Le | Lt)), None)
    return low, high, any(isinstance(m, Lt) for m in marks)


def test_the_copy_of_the_schemas_holds_all_219_leaves() -> None:
    assert len(TAO) == 219


def test_every_key_of_tao_exists() -> None:
    assert not set(TAO) - set(leaves())


def test_defaults_are_taos_unless_the_table_says_otherwise() -> None:
    for key, fact in TAO.items():
        ours, theirs = leaves()[key].default, fact.get("default")
        if key in DIFFERENT_DEFAULTS:
            assert ours != theirs == differences()[key]["default"], (
                f"{key} is no longer different: take it off the list"
            )
        else:
            assert (ours, type(ours)) == (theirs, type(theirs)), key


def test_bounds_are_taos_unless_the_table_says_otherwise() -> None:
    for key, fact in TAO.items():
        low, high, open_end = bounds(key)
        assert low == fact.get("minimum", low), key
        if "maximum" in fact:
            assert high == fact["maximum"], key
            assert open_end == (key in DIFFERENT_BOUNDS), key


def test_choices_are_taos_or_more() -> None:
    for key in [k for k, fact in TAO.items() if "enum" in fact]:
        kind, _ = parts(leaves()[key].annotation)
        assert get_origin(kind) is Literal, key
        assert set(TAO[key]["enum"]) <= set(get_args(kind)), key


def test_types_are_taos_or_wider() -> None:
    for key in [k for k, fact in TAO.items() if fact["type"] in KINDS]:
        kinds = [parts(m)[0] for m in alternatives(leaves()[key].annotation) if m is not NoneType]
        bare = {type(get_args(k)[0]) if get_origin(k) is Literal else (get_origin(k) or k) for k in kinds}
        assert KINDS[TAO[key]["type"]] in bare, key


def test_taos_marks_are_kept_so_that_its_schema_can_be_written_again() -> None:
    for key, fact in TAO.items():
        mark = next((m for m in leaves()[key].marks if isinstance(m, Tao)), None)
        assert mark is not None, key
        assert mark.title == fact.get("title", ""), key
        assert mark.popular == fact.get("popular", False), key
        assert mark.automl == fact.get("automl_enabled"), key
        assert mark.math_cond == fact.get("math_cond", ""), key
        assert mark.pattern == fact.get("pattern", ""), key
        assert mark.kind == (fact["type"] if fact["type"] in ("categorical", "collection") else ""), key


def test_keys_that_taos_schema_lost_exist_too() -> None:
    assert {key: leaves()[key].default for key in BEYOND_THE_SCHEMA} == BEYOND_THE_SCHEMA


def test_the_decision_tells_the_same_differences() -> None:
    defaults, _, rest = DECISION.read_text(encoding="utf-8").partition("## Limits")
    rows = {m[1]: m[2] for m in re.finditer(r"^\| `([\w.]+)` \|[^|]*\| ([^|]+) \|", defaults, re.MULTILINE)}
    assert set(rows) == DIFFERENT_DEFAULTS
    assert set(re.findall(r"^\| `([\w.]+)` \|", rest, re.MULTILINE)) == DIFFERENT_BOUNDS
    for key, said in rows.items():
        if "each" not in said:
            assert json.loads(said) == leaves()[key].default


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        at = tree
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
    return tree


def test_taos_own_defaults_load_as_a_spec(tmp_path: Path) -> None:
    said = {k: fact["default"] for k, fact in TAO.items() if "default" in fact} | {"train.precision": "32"}
    file = tmp_path / "tao.yaml"
    file.write_text(json.dumps(nested(said)), encoding="utf-8")  # JSON is YAML
    loaded = load(file, action="train")
    assert loaded.warnings == []
    assert loaded.spec.train.num_gpus == 8
    assert loaded.spec.train.precision == "fp32"
    assert loaded.spec.dataset.task_prob_train == {"semantic": 0.33, "instance": 0.66, "panoptic": 0.01}


DEPLOY = """
results_dir: /results
dataset:
  label_map: /data/label_map.json
  contiguous_id: true
  val: {annotations: /data/annotations.json, images: <required>, panoptic: /data/panoptic, batch_size: 1}
  test: {images: <required>, batch_size: 1}
export: {task: semantic}
model:
  test: {object_mask_threshold: 0.5, overlap_threshold: 0.8}
  sem_seg_head: {norm: GN, num_classes: 133}
inference: {trt_engine: /results/oneformer.engine}
evaluate: {trt_engine: /results/oneformer.engine}
"""


def test_a_spec_in_the_form_of_taos_deploy_templates_loads(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(DEPLOY, encoding="utf-8")
    loaded = load(file, action="evaluate")
    assert loaded.spec.model.test.overlap_threshold == 0.8
    assert loaded.warnings == []
