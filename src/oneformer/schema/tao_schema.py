"""The spec tree -> schemas and manifest in NVIDIA TAO's dialect, which its services and AutoML read.

The types are TAO's own words (`int`, `collection`, `categorical`), so that this is no JSON Schema; it is strict JSON,
and has no `maximum` where TAO writes Infinity. TAO's files list parameters of sections that they do not hold, and
require `quantize` of everybody: here a file tells of what is in it, and requires what its action cannot do without.
TAO's dialect also knows `option_weights`, `depends_on` and `parent_param`; none of its OneFormer files has one, so that
none is written.
"""

from __future__ import annotations

from copy import deepcopy
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from oneformer.schema.inputs import ACTIONS, INPUTS
from oneformer.schema.json_schema import bound
from oneformer.spec.check import alternatives, parts
from oneformer.spec.experiment import ExperimentSpec
from oneformer.spec.field import Tao, Unit
from oneformer.spec.shorthand import NAMES, targets
from oneformer.spec.tree import Leaf, fields_of, leaves, sections
from oneformer.spec.unread import reason

VERSION = 1
_SOURCE = "oneformer spec tree"
OURS = ("automl_policy", "automl")  # what TAO tells its AutoML beside the spec
_KINDS = {bool: "bool", int: "int", float: "float", str: "string", list: "list", dict: "collection"}
# Word -> the type of its values; a default of another type (none, an empty list for "as another key says") is left out.
_VALUES: dict[str, type] = {
    **{word: kind for kind, word in _KINDS.items()},
    "categorical": str,
    "ordered_int": int,
}
Schema = dict[str, Any]


def roots(action: str) -> tuple[str, ...]:
    """The sections of an action's file, in TAO's order: what all share, `train`, the action's own, `quantize`."""
    shared = [name for name in fields_of(ExperimentSpec) if name not in ACTIONS and name not in OURS]
    return tuple(dict.fromkeys([*shared, "train", action, "quantize"]))


def tao_schema(action: str) -> Schema:
    """The schema file of one action. Raises KeyError for other names."""
    inside = [key for key in leaves() if key.split(".")[0] in roots(action)]
    needed = [one.keys[0] for one in INPUTS[action] if one.always and len(one.keys) == 1]
    properties = {name: _node(name, needed) for name in roots(action)}
    return {
        "type": "object",
        "properties": properties,
        "default": {name: node["default"] for name, node in properties.items() if "default" in node},
        **_lists(inside),
        "popular": _nested([key for key in inside if _mark(leaves()[key]).popular]),
        "required": sorted({key.split(".")[0] for key in needed}),
        "x_tao_schema": {
            "schema_version": VERSION,
            "model": "oneformer",
            "network_arch": "oneformer",
            "action": action,
            "schema_action": action,
            "core_module": "oneformer",
            "source": _SOURCE,
        },
    }


def manifest(*, schemas: str = "schemas", templates: str = "references") -> Schema:
    """What a folder of schemas and templates holds, by action; the arguments are the folders in its paths."""
    actions = {}
    for action in sorted(ACTIONS):
        whole = tao_schema(action)
        actions[action] = {
            "path": f"{schemas}/{action}.schema.json",
            "spec_template": f"{templates}/spec_template_{action}.yaml",
            "core_module": "oneformer",
            "schema_action": action,
            **{k: whole[k] for k in ("automl_default_parameters", "automl_disabled_parameters", "popular")},
        }
    return {
        "schema_version": VERSION,
        "model": "oneformer",
        "network_arch": "oneformer",
        "automl_enabled": True,
        "actions": actions,
        "failures": {},
    }


def shorthand(action: str) -> dict[str, str]:
    """TAO's short name -> its key in an action; `gen_trt_engine` has those of TAO's deploy container."""
    return {name: targets(name, action)[0] for name in NAMES}


def _lists(keys: list[str]) -> Schema:
    """The parameters that AutoML searches, and those that it leaves alone: of lists, tables and sections the whole."""
    above = {".".join(key.split(".")[:n]) for key in keys for n in range(1, key.count(".") + 1)}
    marks = {key: _mark(leaves()[key]).automl for key in keys}
    return {
        "automl_default_parameters": sorted(key for key, automl in marks.items() if automl),
        "automl_disabled_parameters": sorted([*above, *(key for key, automl in marks.items() if automl is False)]),
    }


def _node(key: str, needed: list[str]) -> Schema:
    if key in leaves():
        return leaf_schema(leaves()[key])
    cls, doc = sections()[key]
    inside = {name: _node(f"{key}.{name}", needed) for name in fields_of(cls)}
    below = [k for k in leaves() if k.startswith(f"{key}.")]
    popular = [name for name, node in inside.items() if node.get("popular")]
    lists = _lists(below)
    disabled = [k for k in lists["automl_disabled_parameters"] if k.startswith(f"{key}.")]
    return {
        "type": "collection",
        "title": key.rpartition(".")[2].replace("_", " "),
        "description": doc,
        "automl_enabled": False,
        **({"automl_default_parameters": found} if (found := lists["automl_default_parameters"]) else {}),
        **({"automl_disabled_parameters": disabled} if disabled else {}),
        **({"popular": popular} if popular else {}),
        **({"required": found} if (found := _required(key, needed)) else {}),
        "default": {name: node["default"] for name, node in inside.items() if "default" in node},
        "properties": inside,
    }


def _required(section: str, needed: list[str]) -> list[str]:
    start = f"{section}."
    return sorted({key[len(start) :].split(".")[0] for key in needed if key.startswith(start)})


def leaf_schema(leaf: Leaf) -> Schema:
    """One key in TAO's words."""
    mark, why = _mark(leaf), reason(leaf.key)
    unit = next((f" Unit: {m.name}." for m in leaf.marks if isinstance(m, Unit)), "")
    schema: Schema = {"type": kind_of(leaf), "title": mark.title or leaf.key.rpartition(".")[2].replace("_", " ")}
    schema["description"] = leaf.doc + unit + (f" No effect: {why}." if why else "")
    if isinstance(leaf.default, _VALUES[schema["type"]]):
        schema["default"] = deepcopy(leaf.default)
    members = [m for m in alternatives(leaf.annotation) if m is not NoneType]
    marks = (*leaf.marks, *parts(members[0])[1])
    if get_origin(parts(members[0])[0]) is Literal:
        schema["enum"] = list(get_args(parts(members[0])[0]))
    if schema["type"] in ("int", "float"):
        schema |= _limits(marks, whole=schema["type"] == "int")
    for name, said in (("math_cond", mark.math_cond), ("pattern", mark.pattern)):
        if said:
            schema[name] = said
    if mark.popular:
        schema["popular"] = True
    if mark.automl is not None:
        schema["automl_enabled"] = mark.automl
    return schema


def kind_of(leaf: Leaf) -> str:
    """TAO's word for the type of a key; of a union that of its first member, which is TAO's."""
    mark = next((m for m in leaf.marks if isinstance(m, Tao)), None)
    if mark and mark.kind:
        return mark.kind
    members = [parts(m)[0] for m in alternatives(leaf.annotation) if m is not NoneType]
    first = members[0]
    if get_origin(first) is Literal:
        if not all(isinstance(choice, str) for choice in get_args(first)):
            return "ordered_int"
        return "string" if mark else "categorical"
    return _KINDS[get_origin(first) or first]


def _limits(marks: tuple[Any, ...], *, whole: bool) -> Schema:
    """Smallest and largest value; of a limit that itself is not allowed, the condition beside it."""
    limits: Schema = {}
    number = int if whole else float
    for mark in marks:
        if isinstance(mark, Ge | Gt):
            limits["minimum"] = number(bound(mark))
        if isinstance(mark, Gt) and not whole:
            limits["math_cond"] = f"> {float(bound(mark))}"
        if isinstance(mark, Le | Lt):
            limits["maximum"] = number(bound(mark))
    return limits


def _mark(leaf: Leaf) -> Tao:
    return next((m for m in leaf.marks if isinstance(m, Tao)), Tao())


def _nested(keys: list[str]) -> Schema:
    """Dotted keys -> their defaults as a tree."""
    tree: Schema = {}
    for key in keys:
        *above, name = key.split(".")
        at = tree
        for section in above:
            at = at.setdefault(section, {})
        at[name] = leaves()[key].default
    return tree
