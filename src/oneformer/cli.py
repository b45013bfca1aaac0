"""`oneformer ACTION ...` -> the action's result on stdout, messages on stderr, and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any

from oneformer import __version__
from oneformer.actions.verbs import COMMON, LATER, ON_SPEC, ROOTS, VERBS, Verb
from oneformer.errors import UserError, no_memory, without_secrets

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
# torch reads it once: tensors of some MiB lie in large pages where Linux has them, and a training leaves fewer gaps
# between them (docs/decisions/0007-speed-on-a-cpu.md).
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"


_ON_KEYS = """

what a key means and may hold: oneformer explain train.optim.lr
every key with its default:    oneformer default_specs {name}"""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; `words` are sys.argv's without the program's name."""
    given = list(sys.argv[1:] if words is None else words)
    os.environ.setdefault(LARGE_PAGES, "1")
    show_trace = "--traceback" in given or bool(os.environ.get("ONEFORMER_TRACEBACK"))
    main_thread = threading.current_thread() is threading.main_thread()  # only there signals can be caught
    old = signal.signal(signal.SIGTERM, _terminated) if main_thread else None
    try:
        return _run(list(given))
    except UserError as error:
        if show_trace:
            _print_trace()
        _say(f"error: {error.message}")
        return error.exit_code
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (`oneformer ... | head`); the interpreter must not complain about it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if show_trace:
            _print_trace()
        _say(f"error: {type(error).__name__}: {without_secrets(str(error))}")
        if no_memory(error):
            _say(f"  hint: {_less_memory(given)}")
        elif not show_trace:
            _say("  hint: this is a fault of the program; --traceback (or ONEFORMER_TRACEBACK=1) shows where")
        return FAILED
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, old)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    """A scheduler's SIGTERM ends a run like Ctrl-C does: files are closed, the status says FAILURE."""
    raise KeyboardInterrupt("terminated")


def _less_memory(words: Sequence[str]) -> str:
    """What to change when memory ran out; `train` tells by itself what fits."""
    verb = next((word for word in words if word in ("evaluate", "inference")), "")
    batch = f"{verb}.batch_size=1, or " if verb else ""
    return f"{batch}smaller dataset.augmentation.test_min_size and test_max_size take less memory"


def _print_trace() -> None:
    import traceback

    traceback.print_exc()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _run(words: list[str]) -> int:
    parser = _parser()
    named = next((w for w in words if not w.startswith("-")), None)
    if named is not None and named not in {verb.partition(" ")[0] for verb in VERBS}:
        raise _no_verb(named)
    if named is not None and "--version" not in words:  # options of an action may stand before its name too
        words.remove(named)
        words = [named if named in VERBS else _in_group(named, words), *words]
    try:
        asked, more = parser.parse_known_args(words)
    except SystemExit as end:  # argparse has said what is wrong, or printed the help
        return int(end.code or 0)
    if asked.verb is None and more:
        raise UserError(f"there is no option {more[0]}", where="oneformer", hint="see oneformer --help")
    if asked.verb not in VERBS:  # none, or a group without one of its commands
        _run([*filter(None, [asked.verb]), "--help"])
        return WRONG_REQUEST
    # Overrides may stand before, between and behind the options; argparse hands back those behind.
    asked.words = [*asked.words, *more]
    where, told = f"oneformer {asked.verb}", f"see oneformer {asked.verb} --help"
    stray = next((w for w in asked.words if w.startswith("-")), None)
    if stray:
        raise UserError(f"there is no option {stray}", where=where, hint=told)
    if more and not VERBS[asked.verb].takes_words:
        raise UserError(f"{more[0]!r} is one word too many", where=where, hint=told)
    if VERBS[asked.verb].takes_spec:
        return _act(asked)
    values = {argument.key: getattr(asked, argument.key) for argument in VERBS[asked.verb].arguments}
    return _show(_function(asked.verb)(**values), asked)


def _function(verb: str) -> Any:
    return getattr(import_module(VERBS[verb].module), verb.partition(" ")[2].replace("-", "_") or "run")


def _in_group(group: str, words: list[str]) -> str:
    """The whole name of a command of a group, its second word taken out of `words`; without one the group's."""
    members = [verb.partition(" ")[2] for verb in VERBS if verb.startswith(f"{group} ")]
    word = next((w for w in words if not w.startswith("-")), None)
    if word is None:
        return group
    if word not in members:
        near = get_close_matches(word, members, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(members)}"
        raise UserError(f"there is no command {group} {word}", where="oneformer", hint=hint)
    words.remove(word)
    return f"{group} {word}"


def _act(asked: argparse.Namespace) -> int:
    """Load the spec, say its warnings, run the action and show what it returns."""
    from oneformer.runs.key import VARIABLE, using
    from oneformer.runs.log import set_up_logging
    from oneformer.spec.load import load

    verb = asked.verb
    words = [*_root_words(asked), *asked.words]
    if asked.spec is None and not words:
        raise UserError("no spec is given", where=f"oneformer {verb}", hint=f"for example: {VERBS[verb].example}")
    loaded = load(asked.spec, words, action=verb)
    for warning in loaded.warnings:
        _say(f"warning: {warning}")
    if any(word.startswith("encryption_key=") for word in asked.words):
        _say(f"warning: everybody on this machine can see a key on a command line; set {VARIABLE} instead")
    set_up_logging(verbose=loaded.spec.train.verbose)
    if verb == "train" and loaded.spec.automl_policy != "off":
        verb = _by_policy(loaded.spec.automl_policy)
    with using(loaded.spec.encryption_key):
        result = _function(verb)(loaded.spec, dry_run=asked.dry_run, **_own_options(asked))
    return _show_plan(loaded.spec, result, asked) if asked.dry_run else _show(result, asked)


def _own_options(asked: argparse.Namespace) -> dict[str, Any]:
    """What was said to an action beside its spec."""
    given = {argument.key: getattr(asked, argument.key) for argument in VERBS[asked.verb].arguments}
    return {key: value for key, value in given.items() if value}


def _by_policy(policy: str) -> str:
    """The command that `train` stands for under a policy of searching (`automl_policy`)."""
    from oneformer.automl.policy import searches

    return "automl run" if searches(policy) else "train"


def _root_words(asked: argparse.Namespace) -> list[str]:
    """Options that name roots of data sets, as overrides of the keys that they stand for."""
    import json

    words = []
    for option, (key, _) in ROOTS.items():
        given = getattr(asked, option.lstrip("-").replace("-", "_"), None)
        if given:
            words.append(f"{key}={json.dumps(given[0] if len(given) == 1 else given)}")
    return words


def _show_plan(spec: ExperimentSpec, plan: Any, asked: argparse.Namespace) -> int:
    """Print the resolved spec, secrets masked, and what the action would read and write."""
    from oneformer.runs.secrets import masked
    from oneformer.spec import ExperimentSpec
    from oneformer.spec.tree import from_dict, to_dict
    from oneformer.spec.write import to_yaml

    values = masked(to_dict(spec))
    if asked.json:
        return _show({"spec": values, "plan": plan.to_dict() if hasattr(plan, "to_dict") else plan}, asked)
    _print(to_yaml(from_dict(ExperimentSpec, values), comments=False))
    return _show(plan, asked)


def _show(result: Any, asked: argparse.Namespace) -> int:
    """Print a result as a table or as JSON; None prints nothing. The exit code is the result's own, if it has one."""
    if result is None:
        return DONE
    code = int(getattr(result, "exit_code", DONE))
    if asked.json:
        import json

        from oneformer.runs.atomic import plain

        value = result.to_dict() if hasattr(result, "to_dict") else result
        _print(json.dumps(plain(value), indent=2, ensure_ascii=False))
        return code
    text = result.table() if hasattr(result, "table") else str(result)
    if text:
        _print(text.rstrip("\n"))
    return code


def _no_verb(word: str) -> UserError:
    if word in LATER:
        return UserError(f"this version has no command {word}", where="oneformer", hint=f"it has {', '.join(VERBS)}")
    if word == "help":
        return UserError("there is no command help", where="oneformer", hint="see oneformer --help")
    if word.endswith((".yaml", ".yml")):
        what = f"{word} is a spec, and what to do with it is not said"
        return UserError(what, where="oneformer", hint=f"for example: oneformer train -e {word}")
    near = get_close_matches(word, [*VERBS, *LATER], n=1)
    meant = f"did you mean {near[0]}?" + (" This version does not have it." if near[0] in LATER else "") if near else ""
    return UserError(f"there is no command {word}", where="oneformer", hint=meant or f"there are {', '.join(VERBS)}")


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {verb.example}" for verb in VERBS.values())
    actions = _table(VERBS)
    parser = argparse.ArgumentParser(
        prog="oneformer",
        usage="oneformer ACTION [-e SPEC] [section.key=value ...]",
        description=f"One model for semantic, instance and panoptic segmentation.\n\nactions:\n{actions}",
        epilog=f"examples:\n{rows}\n\nhelp on one action: oneformer train --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"oneformer {__version__}")
    commands = parser.add_subparsers(dest="verb", prog="oneformer", help=argparse.SUPPRESS)
    for group, members in _groups().items():
        commands.add_parser(
            group,
            usage=f"oneformer {group} COMMAND ...",
            description=f"commands:\n{_table(members)}\n\nhelp on one of them: oneformer {next(iter(members))} --help",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    for name, verb in VERBS.items():
        one = commands.add_parser(
            name,
            description=verb.help[:1].upper() + verb.help[1:] + ".",
            epilog=f"example:\n  {verb.example}" + (_ON_KEYS.format(name=name) if verb.takes_spec else ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for option, told in COMMON.items():
            one.add_argument(option, action="store_true", help=told)
        _arguments(one, verb)
    return parser


def _table(verbs: Mapping[str, Verb]) -> str:
    """Names and what they do; argparse's own table would break the line after the longest name."""
    wide = max(map(len, verbs))
    return "\n".join(f"    {name:<{wide}}  {verb.help}" for name, verb in verbs.items())


def _groups() -> dict[str, dict[str, Verb]]:
    """First word -> the commands of that group by their whole names."""
    groups: dict[str, dict[str, Verb]] = {}
    for name, verb in VERBS.items():
        if " " in name:
            groups.setdefault(name.partition(" ")[0], {})[name] = verb
    return groups


_SPEC_OPTIONS: tuple[dict[str, Any], ...] = ({"dest": "spec", "metavar": "SPEC"}, {"action": "store_true"})


def _arguments(one: argparse.ArgumentParser, verb: Verb) -> None:
    if verb.takes_spec:
        for (name, told), more in zip(ON_SPEC.items(), _SPEC_OPTIONS, strict=True):
            one.add_argument(*name.split("/"), help=told, **more)
        for option, (_, told) in ROOTS.items():
            one.add_argument(option, action="append", metavar="URI", help=told)
        one.add_argument("words", nargs="*", metavar="section.key=value", help="laid over the file; the last wins")
    for argument in verb.arguments:
        more = {"help": argument.help}
        if argument.name.startswith("-") and not argument.metavar and not argument.choices:
            more["action"] = "store_true"
        else:
            more |= {"metavar": argument.metavar or None, "choices": argument.choices or None}
        if argument.many:
            more["nargs"] = "*"
        one.add_argument(*argument.name.split("/"), **more)
    if not verb.takes_spec and all(argument.key != "words" for argument in verb.arguments):
        one.set_defaults(words=[])
