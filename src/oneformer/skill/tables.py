"""The spec tree and the table of commands -> the tables of the skill's documents, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oneformer.actions.verbs import VERBS
from oneformer.jobs.fields import TABLE
from oneformer.schema.inputs import ACTIONS, INPUTS, Input
from oneformer.schema.tao_schema import shorthand
from oneformer.skill import patterns
from oneformer.skill.info import data_sources
from oneformer.spec.check import allowed
from oneformer.spec.load import preset_names
from oneformer.spec.tree import leaves
from oneformer.spec.write import value_text

# The keys that decide most, in the order of a user's questions.
IMPORTANT = (
    "preset", "dataset.train.batch_size", "dataset.train.num_workers", "dataset.augmentation.train_crop_size",
    "dataset.augmentation.test_min_size", "dataset.augmentation.test_max_size", "model.sem_seg_head.num_classes",
    "model.one_former.num_object_queries", "train.num_epochs", "train.max_minutes", "train.optim.lr",
    "train.optim.lr_scheduler", "train.clip_gradients.clip_value", "train.precision", "train.accelerator",
    "train.num_gpus", "train.accumulate_grad_batches", "train.activation_checkpointing", "train.pretrained_model",
    "train.pretrained_backbone", "train.resume_training_checkpoint_path", "train.validation_interval",
    "train.best_metric", "train.keep_checkpoints", "model.test.object_mask_threshold", "model.test.overlap_threshold",
)  # fmt: skip
# Function -> what it gives.
FUNCTIONS = {
    "key": "the job's own secret, else its parent's",
    "output_dir": "the job's own results folder",
    "parent_model": "the file that the parent job made, where the key can hold a file of that kind",
    "resume_model": "the latest checkpoint of the job's own training",
    "ptm_if_no_resume_model": "the weights named by `--ptm`, unless the job goes on from a checkpoint",
    "create_onnx_file": "`model.onnx` in the job's own results folder, or the ending of `export.format`",
    "create_engine_file": "`model.engine` in the job's own results folder",
}


def _rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _keys(keys: tuple[str, ...], *, word: str) -> str:
    return f" {word} ".join(f"`{key}`" for key in keys)


def commands() -> str:
    """Every command and what it does."""
    return _rows(("command", "does"), [(f"`oneformer {name}`", verb.help) for name, verb in VERBS.items()])


def needs() -> str:
    """What has to be set for each action."""
    return _rows(("action", "has to be set"), [(f"`{action}`", _needs(action)) for action in ACTIONS])


def _needs(action: str) -> str:
    told = []
    for one in INPUTS[action]:
        if not one.optional:
            (key, values), said = one.only_if, _keys(one.keys, word="or")
            told.append(f"with {' or '.join(f'`{key}={value}`' for value in values)}: {said}" if key else said)
    return "; ".join(told)


def data() -> str:
    """What each action reads of the data, and from which root it can come."""
    rows = []
    for action in ACTIONS:
        sources = data_sources(action)
        for one in INPUTS[action]:
            keys = tuple(key for key in one.keys if _names_data(key))
            if keys:
                found = sources.get(keys[0])
                root = f"`{found['path']}` of `dataset.sources.{found['source']}`" if found else ""
                rows.append((f"`{action}`", _keys(keys, word="or"), _necessity(one), root))
    return _rows(("action", "data", "needed", "or filled from"), rows)


def _names_data(key: str) -> bool:
    images = key.endswith(("images_dir", "calibration_dir"))
    return images or (key.startswith("dataset.") and not key.startswith("dataset.sources."))


def _necessity(one: Input) -> str:
    if one.optional:
        return "for scores while training" if one.keys[0] == "dataset.val.annotations" else "where there are any"
    key, values = one.only_if
    return f"with `{key}={'` or `'.join(values)}`" if key else "yes"


def parameters() -> str:
    """The keys that matter most, with default, range and meaning."""
    rows = []
    for key in IMPORTANT:
        leaf = leaves()[key]
        default = value_text(leaf.default)
        rows.append((f"`{key}`", f"`{default}`" if default else "", allowed(leaf.annotation), leaf.doc))
    return _rows(("key", "default", "may be", "meaning"), rows)


def inferred() -> str:
    """Which keys the job layer fills in, by which function."""
    actions: dict[tuple[str, str], list[str]] = {}
    for action in ACTIONS:
        for both in TABLE[action].items():
            actions.setdefault(both, []).append(action)
    rows = [
        (_of(found), f"`{key}`", f"`{function}`", FUNCTIONS[function]) for (key, function), found in actions.items()
    ]
    return _rows(("action", "key", "function", "value"), rows)


def _of(actions: list[str]) -> str:
    return "all" if len(actions) == len(ACTIONS) else ", ".join(f"`{action}`" for action in actions)


def short_names() -> str:
    """Short names of the command line."""
    return _rows(("name", "key"), [(f"`{name}`", f"`{key}`") for name, key in shorthand("train").items()])


def presets() -> str:
    """The packaged sizes."""
    return ", ".join(f"`{name}`" for name in preset_names()) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "needs": needs,
    "data": data,
    "parameters": parameters,
    "patterns": patterns.table,
    "inferred": inferred,
    "short names": short_names,
    "presets": presets,
}
