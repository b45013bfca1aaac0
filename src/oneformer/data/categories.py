"""The entries of a label map or of `categories` -> checked classes; what is wrong with them is named."""

from __future__ import annotations

from dataclasses import dataclass

from oneformer.data.files import Faults
from oneformer.errors import DataError, UserError

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Category:
    """One entry of a label map or of `categories`."""

    category_id: int
    name: str
    isthing: bool
    color: RGB | None
    says_isthing: bool


def parse_categories(path: object, content: object, errors: list[UserError]) -> list[Category]:
    """The entries of a label map; what is wrong with them is added to `errors`."""
    if not isinstance(content, list):
        hint = "write a JSON list of {id, name, isthing (default 1), color (optional)}"
        errors.append(DataError("the label map is not a list", where=str(path), hint=hint, kind="label_map"))
        return []
    faults = Faults(str(path))
    found: dict[int, Category] = {}
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


def _category(entry: object, place: int, faults: Faults) -> Category | None:
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
    return Category(
        category_id, name.strip(), bool(isthing), tuple(color) if color is not None else None, "isthing" in entry
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_color(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_int(v) and 0 <= v <= 255 for v in value)
