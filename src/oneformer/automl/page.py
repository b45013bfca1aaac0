"""The record of a search -> its report: one HTML page that opens offline, the spec's own values first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from html import escape
from typing import Any

from oneformer.automl.advise import ASKED, FAILED
from oneformer.automl.brain import Brain
from oneformer.automl.ledger import Ledger
from oneformer.automl.propose import LEARNING, proposers
from oneformer.automl.study import Study
from oneformer.automl.thresholds import read
from oneformer.automl.trial import Trial
from oneformer.report.curves import Points, line_chart
from oneformer.report.html import document, header

SHOWN = 8  # lines in one chart


def page(study: Study, brain: Brain, ledger: Ledger) -> str:
    """The page as HTML text."""
    trials = list(ledger.trials.values())
    best = brain.best(trials)
    parts = [
        header("OneFormer AutoML", str(study.folder), _facts(study, brain, trials)),
        _compared(study, brain, trials, best),
        _again(brain, trials),
        _thresholds(study, ledger, best),
        _front(brain, trials),
        _importance(brain, trials),
        _progress(brain, trials),
        _curves(brain, ledger, trials),
        _all(study, brain, trials),
        _advice(ledger, trials),
        _space(study),
    ]
    return document(f"AutoML: {study.folder}", "".join(parts))


def _facts(study: Study, brain: Brain, trials: Sequence[Trial]) -> list[tuple[str, str]]:
    automl, whole = study.spec.automl, study.spec.train.num_epochs
    spent = sum(t.spent for t in trials)
    again, saved = sum(t.repeated for t in trials), len(trials) * whole - spent
    room = f", {again} of them once more because checkpoints had made room" if again else ""
    seconds = sum(r.seconds for t in trials for r in t.rungs.values())
    learned = sum(t.source in (*LEARNING, "llm") for t in trials)
    whom = ", ".join(f"{name} {count}" for name, count in proposers(trials).items())
    broken = sum(t.broken for t in trials)
    over = brain.schedule.next(trials) is None and not any(t.state == "running" for t in trials)
    return [
        ("searched for", f"{brain.goal.name}, {'more' if brain.goal.more else 'less'} is better"),
        ("algorithm", f"{automl.algorithm}, new trials by {brain.proposer.sampler}, seed {automl.seed}"),
        ("trials", f"{len(trials)} of {brain.schedule.expected().trials}, {broken} without a score"),
        ("proposed by a model", f"{learned} of {len(trials)}"),
        ("proposed by", whom),
        ("epochs", f"{spent}{room}; {max(saved, 0)} fewer than with whole trainings only"),
        ("time in trainings", str(timedelta(seconds=round(seconds)))),
        ("ended", "the schedule has nothing left" if over else "not yet"),
    ]


def _compared(study: Study, brain: Brain, trials: Sequence[Trial], best: Trial | None) -> str:
    """The spec's own values beside the best; each was trained once, so that no interval can be told."""
    own = next((t for t in trials if t.id == 0), None)
    if own is None:
        return ""
    named = [("the spec's own values (trial 0)", own)]
    named += [(f"the best (trial {best.id})", best)] if best and best.id else []
    rows = [
        [name, _score(t), str(t.epochs), *(_shown(t.values[d.key]) for d in study.space.dimensions)]
        for name, t in named
    ]
    note = "One training each: how much of the difference is chance is not known."
    if brain.verdicts(trials):
        note = "One training each; the next table tells what fresh seeds have shown."
    if best and best.id == 0:
        note = "Nothing that was tried is better than the spec's own values."
    columns = ["", brain.goal.name, "epochs", *(d.key for d in study.space.dimensions)]
    return _table("Before and after", columns, rows, note)


def _again(brain: Brain, trials: Sequence[Trial]) -> str:
    """What fresh seeds have shown of the finalists."""
    rows = []
    for found in brain.verdicts(trials):
        spread = "-" if found.spread is None else f"{found.spread:.2g}"
        mean = f"{found.mean:.4g}" if found.scores else "-"
        rows.append([str(found.trial.id), _score(found.trial), mean, spread, str(len(found.scores)), str(found.broken)])
    columns = ["trial", "first score", "mean of fresh seeds", "standard deviation", "trainings", "broken"]
    note = "The first score was chosen because it was high; the mean of the fresh ones decides which trial is the best."
    return _table("Trained again with fresh seeds", columns, rows, note) if rows else ""


def _thresholds(study: Study, ledger: Ledger, best: Trial | None) -> str:
    """What `automl tune` has found for the best checkpoint."""
    record = ledger.checkpoint(best) if best else None
    told = read(study.folder, record.digest) if record else {}
    if not told:
        return ""
    rows = [
        [
            told["scores"][task],
            *(f"{told[w][h][task]:.4g}" for h in ("chosen_by", "told_by") for w in ("before", "after")),
        ]
        for task in told["before"]["told_by"]
    ]
    columns = ["score", "chosen by: before", "after", "told by: before", "after"]
    count, changed = told["images"], "; ".join(f"{k}: {told['own'][k]} -> {v}" for k, v in told["found"].items())
    verdict = "export-best hands them over." if told["handed_over"] else "The spec's own are handed over."
    note = (
        f"Without training, {told['tried']} tries: chosen by {count['chosen_by']} of the validation images, told by "
        f"{count['told_by']} others. {changed or 'Nothing is better than the own ones'}. {verdict}"
    )
    return _table("Thresholds", columns, rows, note)


def _front(brain: Brain, trials: Sequence[Trial]) -> str:
    """The trials that no other beats in every objective."""
    if not brain.goal.pareto:
        return ""
    names = [part.metric for part in brain.goal.parts]
    rows = [[str(t.id), *(f"{t.rungs[t.epochs].metrics[n]:.4g}" for n in names)] for t in brain.front(trials)]
    return _table("Front", ["trial", *names], rows, "No other trial is as good in all of these and better in one.")


def _importance(brain: Brain, trials: Sequence[Trial]) -> str:
    found = brain.proposer.importance(trials)
    rows = [[key, f"{share:.0%}"] for key, share in sorted(found.items(), key=lambda item: -item[1])]
    note = "Share of the differences between good and other trials that each key explains (PED-ANOVA)."
    return _table("What mattered", ["key", "share"], rows, note) if rows else ""


def _progress(brain: Brain, trials: Sequence[Trial]) -> str:
    points: Points = [(float(spent), score) for spent, score in brain.curve(trials)]
    if not points:
        return ""
    last = float(sum(t.spent for t in trials))
    points += [(last, points[-1][1])] if last > points[-1][0] else []
    chart = line_chart({"best whole training": points}, label="Best score by epochs spent", x_label="epochs spent")
    return f'<section><h2>Progress</h2><div class="charts"><figure>{chart}</figure></div></section>\n'


def _curves(brain: Brain, ledger: Ledger, trials: Sequence[Trial]) -> str:
    """The trials that got farthest, the spec's own always among them."""
    by_length = sorted((t for t in trials if t.rungs), key=lambda t: (-t.epochs, -brain.goal.worth(_last(t))))
    chosen = by_length[: SHOWN - 1]
    chosen += [t for t in by_length if t.id == 0 and t not in chosen]
    lines: dict[str, Points] = {}
    for trial in sorted(chosen, key=lambda t: t.id):
        metrics = ledger.metrics(trial)
        points = [(float(epoch), found["curve"]) for epoch, found in metrics.items() if "curve" in found]
        if len(points) > 1:
            lines[f"trial {trial.id}"] = points
    if not lines:
        return ""
    chart = line_chart(lines, label=f"{brain.goal.metric} by epoch", x_label="epoch")
    return f'<section><h2>Learning curves</h2><div class="charts"><figure>{chart}</figure></div></section>\n'


def _all(study: Study, brain: Brain, trials: Sequence[Trial]) -> str:
    keys = [d.key for d in study.space.dimensions]
    rows = [
        [str(t.id), t.source, t.state, str(t.epochs), _score(t), *(_shown(t.values[k]) for k in keys), t.reason[:200]]
        for t in trials
    ]
    columns = ["trial", "from", "state", "epochs", brain.goal.name, *(k.rpartition(".")[2] for k in keys), "reason"]
    return _table("All trials", columns, rows)


def _advice(ledger: Ledger, trials: Sequence[Trial]) -> str:
    """What a language model said with its proposals, and what it cost."""
    rows = []
    for t in trials:
        ranges = ", ".join(f"{key} {low:.4g} to {high:.4g}" for key, (low, high) in t.note.get("ranges", {}).items())
        if t.note:
            rows.append([str(t.id), t.source, str(t.note.get("why", "")), ranges])
    if not rows:
        return ""
    told = [json.loads(detail) for _, what, _, detail in ledger.events() if what == ASKED]
    failed = sum(what == FAILED for _, what, _, _ in ledger.events())
    refused = sum("faults" in one for one in told)
    note = f"Asked {len(told)} times with {sum(one['tokens'] for one in told)} tokens; {refused} answers could not be "
    note += f"taken, and {failed} times there was none to take."
    return _table("What the language model said", ["trial", "from", "why", "ranges from here on"], rows, note)


def _space(study: Study) -> str:
    rows = []
    for d in study.space.dimensions:
        limits = ", ".join(map(_shown, d.choices)) if d.kind == "choice" else f"{d.low:.4g} to {d.high:.4g}"
        rows.append([d.key, d.scale, limits, _shown(d.own)])
    left = "; ".join(f"{key}: {why}" for key, why in study.space.left_out.items())
    note = f"Not searched: {left}." if left else ""
    return _table("What was searched", ["key", "scale", "values", "the spec's own"], rows, note)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    said = f"<p>{escape(note)}</p>" if note else ""
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<section><h2>{escape(title)}</h2>{said}<div class="scroll">{body}</div></section>\n'


def _last(trial: Trial) -> float:
    return trial.rungs[trial.epochs].score


def _score(trial: Trial) -> str:
    return f"{_last(trial):.4g}" if trial.rungs else "-"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
