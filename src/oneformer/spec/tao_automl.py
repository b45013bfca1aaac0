"""`automl_settings`, `custom_param_ranges` and `automl_hyperparameters` of NVIDIA TAO -> the same in our `automl` keys.

Every setting of TAO is known: it has its meaning here, or there is a reason why it has none. What two places say
differently is an error that names both.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from oneformer.errors import SpecError
from oneformer.spec.check import shown
from oneformer.spec.node import Node, parse_yaml, plain_node
from oneformer.spec.override import SOURCE
from oneformer.spec.tao import at, with_node, without
from oneformer.spec.tao_settings import (
    BRACKETS,
    GOAL,
    IDLE,
    KEYS,
    KNOWN,
    LENGTHS,
    METRICS,
    NAMES,
    NARROWING,
    NESTED,
    OURS,
    READ_BY,
)

SETTINGS, RANGES, LIST = "automl_settings", "custom_param_ranges", "automl_hyperparameters"


@dataclass
class _Reading:
    """One reading: what is said, and what comes of it."""

    root: Node
    said: dict[str, tuple[str, Node]] = field(default_factory=dict)
    """TAO's setting -> (its whole name, its node)."""
    found: dict[str, tuple[str, Node]] = field(default_factory=dict)
    """Our key -> (the name of TAO's setting, what it says)."""
    warnings: list[str] = field(default_factory=list)
    errors: list[SpecError] = field(default_factory=list)

    def fail(self, what: str, node: Node, hint: str = "") -> None:
        """Note an error at a node."""
        self.errors.append(SpecError(what, where=str(node.key_mark or node.mark), hint=hint))

    def put(self, key: str, name: str, node: Node) -> None:
        """Our key takes a value; another one that it has already is an error that names both."""
        other, before = self.found.get(key, ("", node))
        if _wins(before, node):
            self.found[key] = name, node
        elif not _wins(node, before):
            self.fail(f"{name} is {shown(node)}, but {other} is {shown(before)}, and both say {key}", node)

    def value(self, name: str, default: Any = None) -> Any:
        """What a setting says, in plain values."""
        return self.said[name][1].plain() if name in self.said else default

    @property
    def algorithm(self) -> str:
        """The algorithm that all places together say."""
        written = at(self.root, "automl.algorithm")
        node = self.found["automl.algorithm"][1] if "automl.algorithm" in self.found else written
        return str(node.value).lower() if node is not None and node.value else "asha"


def from_tao_automl(root: Node, *, presets: Path) -> tuple[Node, list[str], list[SpecError]]:
    """A spec -> the same without TAO's settings of a search, lines of what has no effect, and what is wrong.

    Args:
        root: the spec, its references resolved.
        presets: the folder whose files every setting wins over.
    """
    reading = _Reading(root)
    settings, ranges, listed = (at(root, name) for name in (SETTINGS, RANGES, LIST))
    if settings is None and ranges is None and listed is None:
        return root, [], []
    if settings is not None and settings.value is not None:
        _collect(reading, settings, SETTINGS)
    _simple(reading)
    _goal(reading)
    _lengths(reading)
    if listed is not None:
        reading.put("automl.parameters", LIST, _list(listed))
    for name, node in ((RANGES, ranges), *(reading.said[n] for n in ("automl_range_override",) if n in reading.said)):
        if node is not None and node.value is not None:
            _ranges(reading, name, node)
    for name in (SETTINGS, RANGES, LIST):
        root = without(root, name)
    return _laid(root, reading, str(presets)), reading.warnings, reading.errors


def _collect(reading: _Reading, table: Node, prefix: str) -> None:
    """Every setting by its name; those of `algorithm_specific_params` stand beside the others."""
    if not isinstance(table.value, dict):
        reading.fail(f"{prefix} is {shown(table)}, but must be a table", table)
        return
    for name, node in table.value.items():
        whole = f"{prefix}.{name}"
        if name == NESTED:
            if node.value is not None:
                _collect(reading, node, whole)
        elif name not in KNOWN:
            near = get_close_matches(name, KNOWN, n=1)
            reading.fail(f"there is no setting {whole}", node, f"did you mean {near[0]}?" if near else "")
        elif node.value is not None:
            other, before = reading.said.get(name, ("", node))
            if _wins(before, node):
                reading.said[name] = whole, node
            elif not _wins(node, before):
                reading.fail(f"{whole} is {shown(node)}, but {other} is {shown(before)}", node)


def _simple(reading: _Reading) -> None:
    """Settings that mean one key of ours, or nothing."""
    order = sorted(reading.said.items(), key=lambda item: "algorithm" not in item[0])  # it says who reads the others
    for name, (whole, node) in order:
        if name in KEYS:
            what = f"{whole} is not read: a key in a spec ends up in files"
            reading.fail(
                what, node, "export AUTOML_LLM_API_KEY=..., or name another variable in automl.llm.auth_variable"
            )
        elif name in IDLE:
            fine, why = IDLE[name]
            if not any(node.plain() == value for value in fine):
                reading.warnings.append(f"{whole} has no effect: {why}")
        elif name in READ_BY and reading.algorithm not in READ_BY[name]:
            readers = READ_BY[name]
            by = f"{readers[0]} reads" if len(readers) == 1 else f"{', '.join(readers[:-1])} and {readers[-1]} read"
            why = f"only {by} it, and automl.algorithm is {reading.algorithm}"
            reading.warnings.append(f"{whole} has no effect: {why}")
        elif name in NARROWING:
            _narrowing(reading, whole, node)
        elif name in OURS and name not in ("automl_range_override", "metric"):
            reading.put(OURS[name], whole, _meant(name, node))


def _meant(name: str, node: Node) -> Node:
    """A value in our words."""
    if "algorithm" in name and isinstance(node.value, str):
        text = NAMES.get(node.value.lower(), node.value.lower())
        return replace(node, value=text, text=text)
    if name == "automl_hyperparameters":
        return _list(node)
    if name == "automl_enabled" and isinstance(node.value, bool):
        text = "on" if node.value else "off"
        return replace(node, value=text, text=text)
    if name == "research_program" and isinstance(node.value, dict | list):
        text = str(node.plain())
        return Node(text, node.mark, text=text, key_mark=node.key_mark)
    return node


def _narrowing(reading: _Reading, whole: str, node: Node) -> None:
    """`hybrid` whose language model may change ranges is `autoresearch` here."""
    asked = str(node.value).lower() == "true"
    if not asked or reading.algorithm == "autoresearch":
        return
    if reading.algorithm != "hybrid" or "automl.algorithm" not in reading.found:
        reading.warnings.append(f"{whole} has no effect: automl.algorithm is {reading.algorithm}, not hybrid")
        return
    name, before = reading.found["automl.algorithm"]
    reading.found["automl.algorithm"] = name, replace(before, value="autoresearch", text="autoresearch")
    reading.warnings.append(f"{name} hybrid is read as autoresearch, because of {whole}")


def _list(node: Node) -> Node:
    """A list, also where TAO's service gives it as one text: '["a", "b"]'."""
    if isinstance(node.value, str) and node.value.strip().startswith("["):
        return replace(parse_yaml(node.value, node.mark.source), mark=node.mark, key_mark=node.key_mark)
    return node


def _goal(reading: _Reading) -> None:
    """What is searched for: one score, or several objectives."""
    said = {name: reading.said[name] for name in GOAL if name in reading.said}
    metric = reading.said.get("metric")
    if metric:
        name, node = metric
        text = METRICS.get(str(node.value), str(node.value))
        metric = name, replace(node, value=text, text=text)
        reading.put("automl.metric", *metric)
    objectives = _objectives(reading)
    if latency := _latency(reading):
        if not objectives and metric is None:
            reading.fail(f"{latency[0]} needs automl_settings.metric beside it", latency[1])
            return
        if not objectives and metric:
            main = {k: reading.value(f"metric_{k}") for k in ("weight", "scale") if f"metric_{k}" in reading.said}
            minimise = metric[1].value == "train_loss"
            direction = reading.value("direction", "minimize" if minimise else "maximize")
            objectives = {str(metric[1].value): {"direction": direction, **main}}
        objectives.setdefault("latency_ms", latency[2])
    elif "direction" in said:
        _direction(reading, metric)
    if objectives:
        first = next(iter(said[n] for n in ("objectives", "include_latency", "latency_objective") if n in said))
        reading.put("automl.objectives", first[0], plain_node(objectives, first[1].mark))
    for name in ("metric_weight", "metric_scale", "multi_objective"):
        if name in said and not objectives and said[name][1].plain() is not False:
            reading.warnings.append(f"{said[name][0]} has no effect: there is one objective")
    if objectives and reading.value("multi_objective") is False:
        name, node = said["multi_objective"]
        reading.fail(f"{name} is false, but there are the objectives {', '.join(objectives)}", node)


def _objectives(reading: _Reading) -> dict[str, Any]:
    """`objectives`, a list of tables or a table, by the names of our scores."""
    if "objectives" not in reading.said:
        return {}
    whole, node = reading.said["objectives"]
    told: Any = node.plain()
    if isinstance(node.value, dict):
        told = [{"metric": n, **(s if isinstance(s, dict) else {"direction": s})} for n, s in dict(told).items()]
    found: dict[str, Any] = {}
    entries: list[Any] = told if isinstance(told, list) else [None]
    for entry in entries:
        name = entry.get("metric", entry.get("name")) if isinstance(entry, dict) else None
        if not isinstance(name, str):
            reading.fail(f"{whole} has to list tables with metric and direction", node)
            return {}
        said = {k: v for k, v in entry.items() if k not in ("metric", "name") and v is not None}
        found[METRICS.get(name, name)] = said
    return found


def _latency(reading: _Reading) -> tuple[str, Node, dict[str, Any]] | None:
    """(name, node, table) of the objective that the latency settings ask for."""
    said = next((reading.said[n] for n in ("include_latency", "latency_objective") if reading.value(n)), None)
    told = {
        k: reading.said[f"latency_{k}"]
        for k in ("direction", "weight", "scale", "metric")
        if f"latency_{k}" in reading.said
    }
    if said is None:
        for name, _ in told.values():
            reading.warnings.append(f"{name} has no effect: include_latency is not set")
        return None
    more = said[1].plain() if isinstance(said[1].value, dict) else {}
    more = more | {k: node.plain() for k, (_, node) in told.items()}
    metric = more.pop("metric", "latency_ms")
    if METRICS.get(metric, metric) != "latency_ms":
        reading.fail(f"there is no latency {metric}", said[1], "latency_ms is measured")
    return *said, {"direction": "minimize", **more}


def _direction(reading: _Reading, metric: tuple[str, Node] | None) -> None:
    """A direction beside one score: each has its own, so that it can only be right or wrong."""
    name, node = reading.said["direction"]
    written = metric or (("automl.metric", found) if (found := at(reading.root, "automl.metric")) else None)
    score = str(written[1].value) if written else "auto"
    wanted = "minimize" if METRICS.get(score, score) == "train_loss" else "maximize"
    if node.value not in ("minimize", "maximize"):
        reading.fail(f"{name} is {shown(node)}, but must be minimize or maximize", node)
    elif node.value != wanted:
        other = f"{written[0]} is {score}" if written else "automl.metric is auto"
        reading.fail(
            f"{name} is {node.value}, but {other}, of which {'less' if wanted[1] == 'i' else 'more'} is better", node
        )


def _lengths(reading: _Reading) -> None:
    """`automl_max_epochs` times `epoch_multiplier` epochs are a whole training, one times it the shortest."""
    if reading.algorithm not in BRACKETS:  # which has been told
        return
    most = next((reading.said[n] for n in ("automl_max_epochs", "automl_R") if n in reading.said), None)
    times = reading.value("epoch_multiplier", 1)
    numbers = [times] + ([most[1].plain()] if most else [])
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in numbers):
        name, node = next(reading.said[n] for n in LENGTHS if n in reading.said)
        reading.fail(f"{name} is {shown(node)}, but must be a whole number of at least 1", node)
        return
    if most:
        whole = most[1].plain() * times
        name = most[0] + (f" times {reading.said['epoch_multiplier'][0]}" if times != 1 else "")
        reading.put("train.num_epochs", name, plain_node(whole, most[1].mark))
    if "epoch_multiplier" in reading.said and times != 1:
        reading.put("automl.min_epochs", *reading.said["epoch_multiplier"])


def _ranges(reading: _Reading, name: str, node: Node) -> None:
    """Ranges by key, or a list of tables that name their key as `parameter`."""
    tables: dict[str, Node] = {}
    if isinstance(node.value, dict):
        tables = dict(node.value)
    items = node.value if isinstance(node.value, list) else []
    for item in items:
        key = item.value.get("parameter") if isinstance(item.value, dict) else None
        if key is None or not isinstance(key.value, str):
            reading.fail(f"each entry of {name} has to be a table that names its parameter", item)
            return
        tables[key.value] = replace(item, value={k: v for k, v in item.value.items() if k != "parameter"})
    if not isinstance(node.value, dict | list):
        reading.fail(f"{name} is {shown(node)}, but must be a table", node)
        return
    for key, said in tables.items():
        reading.put(f"automl.ranges[{key}]", f"{name}.{key}", said)


def _laid(root: Node, reading: _Reading, presets: str) -> Node:
    """The spec with what was found; a key that it sets itself to another value is an error that names both."""
    ranges = at(root, "automl.ranges")
    table: dict[str, Node] = dict(ranges.value) if ranges is not None and isinstance(ranges.value, dict) else {}
    for key, (name, node) in reading.found.items():
        inner = key.removeprefix("automl.ranges[").removesuffix("]") if key.startswith("automl.ranges[") else ""
        before = table.get(inner) if inner else at(root, key)
        shown_key = f"automl.ranges.{inner}" if inner else key
        if before is None or before.mark.source.startswith(presets) or _wins(before, node):
            if inner:
                table[inner] = node
            else:
                root = with_node(root, key, node)
        elif not _wins(node, before):
            what = f"{name} is {shown(node)}, but {shown_key} is {shown(before)} ({before.mark})"
            reading.fail(what, node, "say it in one place")
    if table:
        mark = ranges.mark if ranges is not None else next(iter(table.values())).mark
        root = with_node(root, "automl.ranges", Node(table, mark))
    return root


def _wins(before: Node, node: Node) -> bool:
    """Whether a node may take another one's place: it says the same, or is the only one of the command line."""
    one, other = before.plain(), node.plain()
    same = bool(one == other or (isinstance(one, str) and METRICS.get(one, one) == other))
    late = [n.mark.source.startswith(SOURCE) for n in (before, node)]
    return same or late == [False, True]
