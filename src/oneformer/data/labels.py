"""A label map file and the annotation files' `categories` -> the one class table that everything else uses."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from oneformer.data.files import Faults, examples, raise_all, read_json
from oneformer.data.formats import FORMATS, yolo_seg
from oneformer.data.formats.part import Part, split_parts
from oneformer.errors import DataError, SpecError, UserError

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec

RGB = tuple[int, int, int]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class LabelMap:
    """The classes in the order of their class ids 0 .. K-1; `category_ids` are the data set's own ids."""

    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    colors: tuple[RGB, ...]
    category_ids: tuple[int, ...]

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
        return {category: i for i, category in enumerate(self.category_ids)}

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


@dataclass(frozen=True)
class _Category:
    """One entry of a label map or of `categories`."""

    category_id: int
    name: str
    isthing: bool
    color: RGB | None
    says_isthing: bool


def read_labels(dataset: DatasetSpec, *, splits: Sequence[str] = SPLITS) -> LabelMap:
    """The class table of a data set.

    `dataset.label_map` gives the order; without one, the classes that the annotations themselves tell do (train's
    first, then what the others add). Both are compared, and each contradiction is named. With `dataset.contiguous_id`
    the class id is the position in that order, without it the ids are used as they are and must be 0 .. K-1. Only the
    given splits that have annotations are read. Raises DataError or UserErrors.
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
    known = _Known({}, complete=bool(dataset.label_map))
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
        _compare(part.annotations, _numbered(listed, known), ids if used else set(), known=known, errors=errors)
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
    return _label_map(categories)


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


def parse_categories(path: object, content: object, errors: list[UserError]) -> list[_Category]:
    """The entries of a label map; what is wrong with them is added to `errors`."""
    if not isinstance(content, list):
        hint = "write a JSON list of {id, name, isthing (default 1), color (optional)}"
        errors.append(DataError("the label map is not a list", where=str(path), hint=hint, kind="label_map"))
        return []
    faults = Faults(str(path))
    found: dict[int, _Category] = {}
    names: dict[str, int] = {}
    for place, entry in enumerate(content):
        category = _category(entry, place, faults)
        if category is None:
            continue
        if category.category_id in found:
            faults.add("two classes have the same id", category.category_id, kind="duplicate_id")
        elif category.name in names:
            ids = f"{category.name!r} (ids {names[category.name]} and {category.category_id})"
            faults.add("two classes have the same name", ids, hint="scores are listed by name: give each class its own")
        else:
            found[category.category_id] = category
            names[category.name] = category.category_id
    if not content:
        faults.add("there are no classes in", "the list")
    errors += faults.errors()
    return list(found.values())


def _category(entry: object, place: int, faults: Faults) -> _Category | None:
    """One entry checked; None when it cannot be used."""
    if not isinstance(entry, dict):
        faults.add("a class is not an object with id and name", f"entry {place}")
        return None
    category_id, name = entry.get("id"), entry.get("name")
    if not isinstance(category_id, int) or isinstance(category_id, bool) or category_id < 0:
        faults.add("the id of a class is not a whole number of 0 or more", f"entry {place}: {category_id!r}")
        return None
    if not isinstance(name, str) or not name.strip():
        faults.add("a class has no name", f"id {category_id}")
        return None
    isthing, color = entry.get("isthing", 1), entry.get("color")
    if isthing not in (0, 1):
        faults.add("isthing is neither 0 nor 1", f"id {category_id}: {isthing!r}")
        return None
    if color is not None and not _is_color(color):
        faults.add("a color is not three whole numbers from 0 to 255", f"id {category_id}: {color!r}")
        return None
    return _Category(
        category_id, name.strip(), bool(isthing), tuple(color) if color is not None else None, "isthing" in entry
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_color(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_int(v) and 0 <= v <= 255 for v in value)


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
    """The classes so far: category id -> class and the file that told it. A `complete` list takes no new ones."""

    classes: dict[int, tuple[_Category, str]]
    complete: bool


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


def _compare(path: str, listed: list[Any] | None, used: set[int], *, known: _Known, errors: list[UserError]) -> None:
    """Check the classes that annotations tell and use against what is known; unless that is complete, add new ones."""
    faults = Faults(path)
    own = {c.category_id: c for c in parse_categories(path, listed, errors)} if listed is not None else {}
    if listed is None and used and not known.complete:
        hint = "set dataset.label_map, or add the list of {id, name, isthing} to the file"
        errors.append(DataError("the annotation file has no list 'categories'", where=path, hint=hint))
        return
    for category in own.values():
        if category.category_id not in known.classes:
            if not known.complete:
                known.classes[category.category_id] = (category, path)
            continue
        _contradictions(category, *known.classes[category.category_id], complete=known.complete, faults=faults)
    what = "annotations use a category that is not in the label map"
    if not known.complete:
        what = "annotations use an undeclared category"
    for category_id in sorted(used - set(known.classes)):
        name = f" ({own[category_id].name})" if category_id in own else ""
        hint = "add it to the label map, or take its segments out of the annotations"
        faults.add(what, f"id {category_id}{name}", hint=hint, kind="unknown_category")
    errors += faults.errors()


def _contradictions(mine: _Category, theirs: _Category, source: str, *, complete: bool, faults: Faults) -> None:
    """Name and kind of one class as an annotation file and an earlier source tell them."""
    item = f"id {mine.category_id} is {{}} here and {{}} there"
    if mine.name != theirs.name:
        faults.add(f"name contradicts {source}", item.format(repr(mine.name), repr(theirs.name)), kind="label_map")
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


def _label_map(categories: list[_Category]) -> LabelMap:
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
