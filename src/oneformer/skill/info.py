"""The tables of the product -> the two description files that NVIDIA TAO's job layer reads, in its form."""

from __future__ import annotations

from typing import Any

from oneformer.jobs.fields import TABLE
from oneformer.runs.away import EXCLUDES
from oneformer.schema.inputs import ACTIONS, INPUTS, path_format
from oneformer.schema.tao_schema import manifest, shorthand
from oneformer.spec.write import value_text

DEPLOY = ("gen_trt_engine", "evaluate", "inference")
ENGINE_KEYS = {"evaluate": "evaluate.trt_engine", "inference": "inference.trt_engine"}
ROOTS = ("train_datasets", "eval_dataset", "inference_dataset", "calibration_dataset")
EXTRACTED = "extracted_folder"
COMMAND = "oneformer {action} -e {{config_path}}"
Info = dict[str, Any]


def skill_info(name: str) -> Info:
    """Actions, commands, inputs, outputs, data sources, inferred parameters, short names of the whole product."""
    return {
        **_head(name, "Universal image segmentation with OneFormer: train, score, predict, export, quantize, deploy."),
        "actions": {action: _action(action, _inputs(action)) for action in ACTIONS},
        "data_sources": {action: found for action in ACTIONS if (found := data_sources(action))},
        "spec_params": {action: dict(TABLE[action]) for action in ACTIONS},
        "key_defaults": {},
        "spec_shorthand_keys": shorthand("train"),
        "spec_templates": {action: f"spec_template_{action}.yaml" for action in ACTIONS},
    }


def deploy_info(name: str) -> Info:
    """The same for work with TensorRT engines."""
    engines = {action: key for action, key in ENGINE_KEYS.items() if action in DEPLOY}
    inputs = {action: _inputs(action) for action in DEPLOY}
    params = {action: dict(TABLE[action]) for action in DEPLOY}
    for action, key in engines.items():
        model = INPUTS[action][0].keys[0]
        inputs[action] = {key: {"type": "file"}, **{k: v for k, v in inputs[action].items() if k not in (model, key)}}
        params[action].pop(model)
    return {
        **_head(f"{name}-deploy", "TensorRT engines: build, score, predict."),
        "actions": {action: _action(action, inputs[action]) for action in DEPLOY},
        "data_sources": {action: found for action in DEPLOY if (found := data_sources(action))},
        "spec_params": params,
        "spec_shorthand_keys": {name: key for name, key in shorthand("gen_trt_engine").items() if _deploys(name)},
        "spec_templates": {action: f"spec_template_deploy_{action}.yaml" for action in DEPLOY},
    }


def _head(name: str, description: str) -> Info:
    return {
        "name": name,
        "description": description,
        "network_arch": "oneformer",
        "automl_enabled": manifest()["automl_enabled"],
        "data_format": "coco_panoptic",
        "gpu_spec_key": "train.num_gpus",
    }


def _deploys(name: str) -> bool:
    """Whether TAO's deploy container knows a short name."""
    shared = ("batch_size", "val_batch_size", "test_batch_size", "num_classes", "contiguous_id", "export_task")
    return name in shared or name.startswith("trt_")


def _action(action: str, inputs: Info) -> Info:
    return {
        "command": COMMAND.format(action=action),
        "config_format": "yaml",
        "mode": "config",
        "inputs": inputs,
        "outputs": {"results_dir": {"type": "folder"}},
        "upload_excludes": list(EXCLUDES),
    }


def _inputs(action: str) -> Info:
    """Key -> what it names; of several that serve alike the first is the input, and it lists the others."""
    found: Info = {}
    for one in INPUTS[action]:
        first, *others = one.keys
        found.setdefault(first, {"type": _type(first)})
        if others:
            found[first]["or"] = others
        if not one.always:
            found[first]["optional"] = True
        for key in others:
            found.setdefault(key, {"type": _type(key), "optional": True})
    return found


def _type(key: str) -> str:
    kind = path_format(key)
    folder = kind == "directory-path" or (kind == "path" and key.startswith("dataset.sources."))
    return "folder" if folder else "file"


def data_sources(action: str) -> Info:
    """Key -> the root that fills it, and the file's name there."""
    from oneformer.data.sources.roots import FILES, FOLDERS, LABEL_MAP, SPLITS

    found: Info = {}
    splits = SPLITS.get(action, {})
    for split, source in splits.items():
        for name, files in FILES.items():
            found[f"dataset.{split}.{name}"] = _source(source, files[0])
    if splits:
        found["dataset.label_map"] = _source(next(iter(splits.values())), LABEL_MAP[0])
    if action in FOLDERS:
        key, root = FOLDERS[action]
        found[key] = _source(root, FILES["images"][0])
    return found


def _source(root: str, file: str) -> Info:
    return {"source": root, "path": file, **({} if file.endswith(".json") else {"runtime": EXTRACTED})}


def as_yaml(tree: Info, indent: str = "") -> str:
    """Nested tables as YAML in block style, in the order they have."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{key}:\n{as_yaml(value, indent + '  ')}")
        else:
            lines.append(f"{indent}{key}: {value_text(value)}\n")
    return "".join(lines)
