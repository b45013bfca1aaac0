"""`automl_policy` -> whether `oneformer train` becomes a search."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


def searches(policy: str) -> bool:
    """`on` searches; `auto` searches where TAO would: the model is meant for it and its schema is there.

    A schema that is missing is told: the search is enabled then, but cannot run, and one training takes its place.
    """
    if policy != "auto":
        return policy == "on"
    from oneformer.runs.editor import schema_file
    from oneformer.schema.tao_schema import manifest

    if not manifest()["automl_enabled"]:
        return False
    schema = schema_file("train")
    if schema.name == "train.schema.json" and schema.is_file():
        return True
    log.warning("automl_policy=auto: a search is enabled for this model but cannot run, %s is missing", schema.parent)
    return False
