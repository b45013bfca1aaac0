"""A label map file and the annotation files' `categories` -> the one class table that everything else uses."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from oneformer.data.categories import RGB, Category, parse_categories
from oneformer.data.files import Faults, examples, raise_all, read_json
from oneformer.data.formats import FORMATS, yolo_seg
from oneformer.data.formats.part import Part, split_parts
from oneformer.errors import DataError, SpecError, UserError

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class LabelMap:
    """The classes in the order of their class ids 0 .. K-1; `category_ids` are the data set's own ids."""

    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    colors: tuple[RGB, ...]
    category_ids: tuple[int, ...]
    renumbered: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)
    """(format, annotations) of a data set that numbers classes of these names differently -> its own ids of them, -1
    for those that it lacks."""

    @property
    def num_classes(self) -> int:
        """K, without "no object"."""
        return len(self.names)

    @property
    def thing_ids(self) -> tuple[int, ...]:
        """Class ids of countable things."""
        return tuple(i for i, thing in enumerate(self.is_thing) if thing)

    @property
    def stuff_ids(self) -> tuple[int, ...]:
        """Class ids of stuff (regions without instances)."""
        return tuple(i for i, thing in enumerate(self.is_thing) if not thing)

    @cached_property
    def class_of(self) -> dict[int, int]:
        """The data set's category id -> class id."""
        return {category: i for i, category in enumerate(self.category_ids) if category >= 0}

    def seen_by(self, part: Part) -> LabelMap:
        """The same classes with the category ids of one of several data sets."""
        own = self.renumbered.get((part.format, part.annotations))
        return replace(self, category_ids=own, renumbered={}) if own else self

    def matched_by_name(self) -> list[DataError]:
        """For each data set that numbers the classes differently: what was made of that."""
        told = []
        for (_, path), own in self.renumbered.items():
            other = [
                f"{name!r} (id {mine} here, {main} elsewhere)"
                for name, mine, main in zip(self.names, own, self.category_ids, strict=True)
                if mine not in (-1, main)
            ]
            hint = "nothing has to be done if the names mean the same"
            what = f"ids differ from those of the other files, so classes are told by their names: {examples(other)}"
            told.append(DataError(what, where=path, hint=hint, kind="label_map"))
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as stored in checkpoints and graph files."""
        return {
            "names": list(self.names),
            "is_thing": list(self.is_thing),
            "colors": [list(color) for color in self.colors],
            "category_ids": list(self.category_ids),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> LabelMap:
        """The inverse of `to_dict`. Raises DataError when a part is missing or the parts differ in length."""
        try:
            labels = cls(
                names=tuple(str(name) for name in stored["names"]),
                is_thing=tuple(bool(thing) for thing in stored["is_thing"]),
                colors=tuple((int(r), int(g), int(b)) for r, g, b in stored["colors"]),
                category_ids=tuple(int(i) for i in stored["category_ids"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the stored class list is broken: {error!r}") from None
        lengths = {len(labels.names), len(labels.is_thing), len(labels.colors), len(labels.category_ids)}
        if len(lengths) > 1 or not labels.names:
            raise DataError("the stored class list is broken: its parts differ in length or are empty")
        return labels


def read_labels(dataset: DatasetSpec, *, splits: Sequence[str] = SPLITS) -> LabelMap:
    """The class table of a data set.

    `dataset.label_map` gives the order; without one, the classes that the annotations themselves tell do (train's
    first, then what the others add). Both are compared, and each contradiction is named. With `dataset.contiguous_id`
    the class id is the position in that order, and a class that a file knows under another id is told by its name;
    without it the ids are used as they are and must be 0 .. K-1. Only the given splits that have annotations are read.
    Raises DataError or UserErrors.
    """
    errors: list[UserError] = []
    labels = collect_labels(dataset, splits=splits, errors=errors)
    raise_all(errors)
    assert labels is not None
    return labels


def collect_labels(
    dataset: DatasetSpec, *, splits: Sequence[str] = SPLITS, errors: list[UserError], used: bool = True
) -> LabelMap | None:
    """Like `read_labels`, but faults are added to `errors`; None when they leave no class table to go on with.

    Without `used`, ids that annotations use and nobody declares are left to the reader, which tells their images.
    """
    known = _Known({}, complete=bool(dataset.label_map), by_name=dataset.contiguous_id)
    before = len(errors)  # faults of other parts of the request say nothing about the classes
    if dataset.label_map:
        try:
            read = parse_categories(dataset.label_map, read_label_map(dataset.label_map), errors)
        except DataError as error:
            errors.append(error)
            return None
        if len(errors) > before:  # comparing with half a label map would only hide its faults
            return None
        known.classes = {c.category_id: (c, dataset.label_map) for c in read}
    for part in _parts(dataset, splits, errors):
        try:
            listed, ids = FORMATS[part.format].categories(part)
        except UserError as error:
            errors += getattr(error, "errors", [error])
            continue
        _compare(part, _numbered(listed, known), ids if used else set(), known=known, errors=errors)
    categories = [category for category, _ in known.classes.values()]
    if not categories:
        hint = "set dataset.label_map to a JSON list of {id, name, isthing}, or dataset.train.annotations"
        what = "no classes are known: there is no label map, and no annotation file that lists them"
        if len(errors) == before:
            errors.append(DataError(what, where="dataset.label_map", hint=hint, kind="label_map"))
        return None
    if not dataset.contiguous_id:
        source = dataset.label_map or next(iter(known.classes.values()))[1]
        gaps = _gap_fault([c.category_id for c in categories], source)
        if gaps is not None:
            errors.append(gaps)
            return None
        categories.sort(key=lambda c: c.category_id)
    return replace(_label_map(categories), renumbered=known.renumbered())


def labels_of(entries: object, *, where: object) -> LabelMap:
    """The class table of the entries of a label map, in their order. Raises UserErrors, each fault named."""
    errors: list[UserError] = []
    categories = parse_categories(where, entries, errors)
    raise_all(errors)
    return _label_map(categories)


def read_label_map(path: str) -> object:
    """The content of a label map: JSON, or the `names` of a YAML file as YOLO data sets have. Raises DataError."""
    if path.lower().endswith((".yaml", ".yml")):
        return yolo_seg.names_of(path)
    return read_json(path, what="label map")


def _parts(dataset: DatasetSpec, splits: Sequence[str], errors: list[UserError]) -> list[Part]:
    """The data sets of the splits, each once; what is wrong with their paths is added to `errors`."""
    parts: dict[tuple[str, str], Part] = {}
    for split in splits:
        try:
            for part in split_parts(dataset, split):
                parts.setdefault((part.format, part.annotations), part)
        except UserError as error:
            errors += getattr(error, "errors", [error])
    return list(parts.values())


@dataclass
class _Known:
    """The classes so far: category id -> class and the file that told it.

    A `complete` list takes no new ones. `by_name`, a class may have another id in another file; `own` keeps those
    files' ids: (format, annotations) -> id here -> id there.
    """

    classes: dict[int, tuple[Category, str]]
    complete: bool
    by_name: bool
    own: dict[tuple[str, str], dict[int, int]] = field(default_factory=dict)

    def place_of(self, category: Category) -> int:
        """The id under which a class is known, by its name or else by its id; its own id when it is new."""
        named = self.named(category.name) if self.by_name else None
        return category.category_id if named is None else named

    def named(self, name: str) -> int | None:
        """The id of the class of this name; None when there is none."""
        return next((i for i, (category, _) in self.classes.items() if category.name == name), None)

    def renumbered(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """What `LabelMap` has of this name."""
        return {part: tuple(ids.get(i, -1) for i in self.classes) for part, ids in self.own.items()}


def _numbered(listed: list[Any] | None, known: _Known) -> list[Any] | None:
    """Formats that know classes by name only tell no ids: known names get theirs, new ones the next, if any may come.

    A name that a complete list lacks is left to the reader, which tells the files that use it.
    """
    if listed is None or not all(isinstance(entry, dict) and "id" not in entry for entry in listed):
        return listed
    ids = {category.name: category_id for category_id, (category, _) in known.classes.items()}
    for entry in listed:
        if not known.complete:
            ids.setdefault(entry["name"], max(ids.values(), default=-1) + 1)
    return [{"id": ids[entry["name"]], **entry} for entry in listed if entry["name"] in ids] or None


def _compare(part: Part, listed: list[Any] | None, used: set[int], *, known: _Known, errors: list[UserError]) -> None:
    """Check the classes that annotations tell and use against what is known; unless that is complete, add new ones."""
    path = part.annotations
    faults = Faults(path)
    own = parse_categories(path, listed, errors) if listed is not None else []
    if listed is None and used and not known.complete:
        hint = "set dataset.label_map, or add the list of {id, name, isthing} to the file"
        errors.append(DataError("the annotation file has no list 'categories'", where=path, hint=hint))
        return
    here: dict[int, int] = {}
    for category in own:
        place = known.place_of(category)
        if place not in known.classes and known.named(category.name) is not None:
            hint = "dataset.contiguous_id=true tells classes by their names"
            faults.add("a class has another id in another file", category.name, hint=hint, kind="label_map")
        elif place in known.classes:
            here[place] = category.category_id
            _contradictions(category, *known.classes[place], complete=known.complete, faults=faults)
        elif not known.complete:
            here[place] = place
            known.classes[place] = (category, path)
    declared = set(here.values())
    if any(place != category_id for place, category_id in here.items()):
        known.own[part.format, path] = here
    else:
        declared |= set(known.classes)
    names = {category.category_id: f" ({category.name})" for category in own}
    what = "annotations use a category that is not in the label map"
    if not known.complete:
        what = "annotations use an undeclared category"
    for category_id in sorted(used - declared):
        hint = "add it to the label map, or take its segments out of the annotations"
        faults.add(what, f"id {category_id}{names.get(category_id, '')}", hint=hint, kind="unknown_category")
    errors += faults.errors()


def _contradictions(mine: Category, theirs: Category, source: str, *, complete: bool, faults: Faults) -> None:
    """Name and kind of one class as an annotation file and an earlier source tell them."""
    item = f"id {mine.category_id} is {{}} here and {{}} there"
    if mine.name != theirs.name:
        hint = (
            "" if complete else "list the classes of all files in dataset.label_map: ids are told by their names then"
        )
        what = f"name contradicts {source}"
        faults.add(what, item.format(repr(mine.name), repr(theirs.name)), hint=hint, kind="label_map")
    both_say = mine.says_isthing and (theirs.says_isthing or complete)
    if both_say and mine.isthing != theirs.isthing:
        hint = "things are counted one by one, stuff is not: make both files say the same"
        what = f"isthing contradicts {source}"
        faults.add(what, item.format(int(mine.isthing), int(theirs.isthing)), hint=hint, kind="thing_stuff")


def _gap_fault(ids: list[int], source: str) -> DataError | None:
    """The fault of class ids that are used as they are and have a gap; None without one."""
    gaps = sorted(set(range(len(ids))) - set(ids))
    if not gaps:
        return None
    outside = sorted(i for i in ids if i >= len(ids))
    return DataError(
        f"dataset.contiguous_id is false, so the {len(ids)} class ids must be 0 to {len(ids) - 1}, "
        f"but {examples(gaps)} are not used and {examples(outside)} lie outside",
        where=source,
        hint="set dataset.contiguous_id: true, then classes are numbered in the order of the list",
        kind="label_gap",
        items=[str(i) for i in outside],
    )


def _label_map(categories: list[Category]) -> LabelMap:
    taken = {c.color for c in categories if c.color}
    colors: list[RGB] = []
    fresh = iter(_distinct_colors(len(categories) + len(taken)))
    for category in categories:
        color = category.color or next(c for c in fresh if c not in taken)
        colors.append(color)
    return LabelMap(
        names=tuple(c.name for c in categories),
        is_thing=tuple(c.isthing for c in categories),
        colors=tuple(colors),
        category_ids=tuple(c.category_id for c in categories),
    )


def _distinct_colors(count: int) -> list[RGB]:
    """At least `count` different colours, the same each time: hues by the golden ratio, three tones."""
    tones = ((0.65, 0.95), (0.9, 0.7), (0.45, 0.8))
    colors: dict[RGB, None] = {}
    place = 0
    while len(colors) < count:
        saturation, value = tones[place % len(tones)]
        r, g, b = colorsys.hsv_to_rgb(place * 0.618034 % 1.0, saturation, value)
        colors[(round(r * 255), round(g * 255), round(b * 255))] = None
        place += 1
    return list(colors)


def check_num_classes(labels: LabelMap, num_classes: int) -> None:
    """Raise SpecError when the label map and the network's class count (without "no object") differ."""
    if labels.num_classes != num_classes:
        raise SpecError(
            f"the label map has {labels.num_classes} classes, model.sem_seg_head.num_classes is {num_classes}",
            where="model.sem_seg_head.num_classes",
            hint=f"set model.sem_seg_head.num_classes={labels.num_classes}",
        )
