"""A spec or schema file of any NVIDIA TAO release -> the same in our keys, with a warning for what is left."""

from __future__ import annotations

from dataclasses import replace

from oneformer.spec.node import Node, plain_node

# Keys of single TAO releases that have no place in the tree -> why.
_CHECKPOINTER = "train.keep_checkpoints and train.best_metric say which checkpoints are kept"
GONE: dict[str, str] = {
    "model.precise_msda": "deformable attention is computed in the precision of the run, its positions in float32",
    "train.checkpointer": _CHECKPOINTER,
    "train.checkpointer.enable_topk": _CHECKPOINTER,
    "train.checkpointer.monitor": "train.best_metric names the score that decides",
    "train.checkpointer.mode": "every score is better when it is higher, every loss when it is lower",
    "train.checkpointer.filename": "checkpoints have the names model_epoch_EEE_step_SSSSS.pth",
    "train.checkpointer.dirpath": "checkpoints lie in the folder of the run (train.results_dir)",
    "train.checkpointer.save_top_k": "train.keep_checkpoints says how many are kept, beside the best and the latest",
    "train.checkpointer.auto_insert_metric_name": "checkpoints have the names model_epoch_EEE_step_SSSSS.pth",
    "train.checkpointer.replace_periodic": _CHECKPOINTER,
}
# Other names of keys, in files that TAO ships and its own schema refuses.
RENAMED: dict[str, str] = {
    "model.num_queries": "model.one_former.num_object_queries",
    "model.one_former.num_queries": "model.one_former.num_object_queries",
}
# Key -> the number that says "no limit" in TAO, which is null here.
NO_LIMIT: dict[str, int] = {"train.iters_per_epoch": -1}


def from_tao(root: Node) -> tuple[Node, list[str]]:
    """A spec -> the same without the peculiarities of single TAO releases, and a line for each dropped key."""
    warnings: list[str] = []
    for key, why in sorted(GONE.items(), reverse=True):
        found = at(root, key)
        if found is not None:
            root = without(root, key)
            if not isinstance(found.value, dict):
                warnings.append(f"{key} has no effect: {why}")
    for old, new in RENAMED.items():
        found = at(root, old)
        if found is not None:
            root = with_node(without(root, old), new, found)
            warnings.append(f"{old} is read as {new}")
    for key, number in NO_LIMIT.items():
        found = at(root, key)
        if found is not None and found.value == number and found.value is not True:
            root = with_node(root, key, replace(plain_node(None, found.mark), key_mark=found.key_mark))
    return root, warnings[::-1]


def from_file(root: Node) -> Node:
    """A file -> a spec: of a schema its defaults, and a section where a file gives the name of the backbone alone."""
    return _named_backbone(root.value["default"] if is_schema(root) else root)


def is_schema(root: Node) -> bool:
    """Whether a table is a schema in TAO's dialect, whose `default` is a spec."""
    if not isinstance(root.value, dict):
        return False
    parts = [root.value.get(name) for name in ("properties", "default")]
    return all(part is not None and isinstance(part.value, dict) for part in parts)


def _named_backbone(root: Node) -> Node:
    """`model.backbone: swin`, a name where a section belongs."""
    found = at(root, "model.backbone")
    if found is None or not isinstance(found.value, str) or not found.value:
        return root
    return with_node(root, "model.backbone", Node({"name": found}, found.mark, key_mark=found.key_mark))


def at(root: Node, key: str) -> Node | None:
    """What a table says at a dotted key; None when it says nothing."""
    found: Node | None = root
    for name in key.split("."):
        found = found.value.get(name) if found is not None and isinstance(found.value, dict) else None
    return found


def without(root: Node, key: str) -> Node:
    """A table without one of its dotted keys; the same table when it does not have it."""
    name, _, rest = key.partition(".")
    if not (isinstance(root.value, dict) and name in root.value):
        return root
    if rest:
        return replace(root, value={**root.value, name: without(root.value[name], rest)})
    return replace(root, value={k: v for k, v in root.value.items() if k != name})


def with_node(root: Node, key: str, node: Node) -> Node:
    """A table with a value at a dotted key."""
    name, _, rest = key.partition(".")
    table = root.value if isinstance(root.value, dict) else {}
    below = table.get(name, Node({}, node.mark))
    return replace(root, value={**table, name: with_node(below, rest, node) if rest else node})
