"""One mask for each object -> what such formats share: the class of uncovered pixels, tasks, stuff without masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oneformer.data.files import Faults
from oneformer.data.formats.part import Part
from oneformer.data.task import TASKS
from oneformer.errors import SpecError

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap


def rest_class(part: Part, labels: LabelMap) -> int | None:
    """The class id of `dataset.background`, None when it is empty. Raises SpecError when it is no stuff class."""
    if not part.background:
        return None
    stuff = [labels.names[i] for i in labels.stuff_ids]
    if part.background not in stuff:
        hint = f"stuff classes are {', '.join(stuff)}" if stuff else "the label map has no stuff class (isthing 0)"
        raise SpecError(f"{part.background!r} is no stuff class", where="dataset.background", hint=hint)
    return labels.names.index(part.background)


def tasks_for(labels: LabelMap, rest: int | None) -> tuple[str, ...]:
    """All tasks where stuff is labelled too: by masks of its own, or as what the others leave over."""
    return TASKS if rest is not None or labels.stuff_ids else ("instance",)


def note_absent_stuff(labels: LabelMap, used: set[int], rest: int | None, faults: Faults) -> None:
    """Stuff that no object is of, and that no pixel is left over for, can never be learned."""
    if rest is not None:
        return
    for class_id in labels.stuff_ids:
        if class_id not in used:
            name = labels.names[class_id]
            hint = f"set dataset.background={name} if it is what no object covers; else give it masks"
            faults.add(
                "no object is of a stuff class of the label map", name, hint=hint, kind="absent_class", warning=True
            )
