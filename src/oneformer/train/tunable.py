"""A key of the spec -> whether saved weights can go on with another value of it."""

from __future__ import annotations

# What may change between two parts of one training without making the saved weights meaningless.
TUNABLE_MODEL_PARTS = ("test", "task_toggling", "export")
TUNABLE_MODEL_KEYS = (
    "_weight", "dropout", "drop_rate", "drop_path_rate", "use_checkpoint", "train_num_points", "oversample_ratio",
    "importance_sample_ratio",
)  # fmt: skip


def breaks(key: str) -> bool:
    """Whether another value of a key makes saved weights meaningless; `classes.` are those of the labels."""
    part = key.removeprefix("model.").split(".")[0]
    of_model = key.startswith("model.") and part not in TUNABLE_MODEL_PARTS and not key.endswith(TUNABLE_MODEL_KEYS)
    return of_model or key == "train.freeze" or (key.startswith("classes.") and key != "classes.colors")
