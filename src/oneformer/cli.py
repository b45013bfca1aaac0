"""`oneformer ACTION ...` -> the action's result on stdout, messages on stderr, and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any

from oneformer import __version__
from oneformer.errors import UserError

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Verb:
    """One command: where its work is done and how it is told."""

    module: str
    """Module with `run`; empty for commands that this file answers itself."""
    help: str
    example: str
    takes_spec: bool = True
    """It runs on a spec: `-e`, overrides, `--dry-run`."""
    takes_words: bool = True
    """It takes any number of words beside its options."""


VERBS = {
    "train": Verb(
        "oneformer.actions.train",
        "train a model",
        "oneformer train -e spec.yaml train.num_epochs=10 train.optim.lr=2e-4",
    ),
    "evaluate": Verb(
        "oneformer.actions.evaluate",
        "score a weight file on all three tasks",
        "oneformer evaluate -e spec.yaml evaluate.checkpoint=results/train/oneformer_model_best.pth",
    ),
    "inference": Verb(
        "oneformer.actions.inference",
        "predict on a folder of images",
        "oneformer inference -e spec.yaml inference.checkpoint=best.pth inference.images_dir=photos inference.mode=all",
    ),
    "default_specs": Verb(
        "oneformer.actions.default_specs",
        "write a spec with every key, its default and its meaning",
        "oneformer default_specs train results_dir=specs",
        takes_spec=False,
    ),
    "doctor": Verb(
        "oneformer.actions.doctor",
        "show versions, devices, memory and optional packages",
        "oneformer doctor",
        takes_spec=False,
        takes_words=False,
    ),
    "explain": Verb(
        "", "tell what a key of the spec means", "oneformer explain train.optim.lr", takes_spec=False, takes_words=False
    ),
    "completion": Verb(
        "",
        "print the completion script of a shell",
        "oneformer completion bash > ~/.oneformer-completion",
        takes_spec=False,
        takes_words=False,
    ),
}
# Verbs of the whole product that this version does not have: typing one is answered, listing them would promise.
LATER = (
    "export",
    "quantize",
    "gen_trt_engine",
    "automl",
    "dataset",
    "checkpoint",
    "jobs",
    "skill",
    "serve",
    "benchmark",
)


_ON_KEYS = """

what a key means and may hold: oneformer explain train.optim.lr
every key with its default:    oneformer default_specs {name}"""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; `words` are sys.argv's without the program's name."""
    given = list(sys.argv[1:] if words is None else words)
    show_trace = "--traceback" in given or bool(os.environ.get("ONEFORMER_TRACEBACK"))
    main_thread = threading.current_thread() is threading.main_thread()  # only there signals can be caught
    old = signal.signal(signal.SIGTERM, _terminated) if main_thread else None
    try:
        return _run(given)
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
        _say(f"error: {type(error).__name__}: {error}")
        if not show_trace:
            _say("  hint: this is a fault of the program; --traceback (or ONEFORMER_TRACEBACK=1) shows where")
        return FAILED
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, old)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    """A scheduler's SIGTERM ends a run like Ctrl-C does: files are closed, the status says FAILURE."""
    raise KeyboardInterrupt("terminated")


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
    if named is not None and named not in VERBS:
        raise _no_verb(named)
    if named is not None and "--version" not in words:  # options of an action may stand before its name too
        place = words.index(named)
        words = [named, *words[:place], *words[place + 1 :]]
    try:
        asked, more = parser.parse_known_args(words)
    except SystemExit as end:  # argparse has said what is wrong, or printed the help
        return int(end.code or 0)
    if asked.verb is None and more:
        raise UserError(f"there is no option {more[0]}", where="oneformer", hint="see oneformer --help")
    if asked.verb is None:
        _print(parser.format_help().rstrip())
        return WRONG_REQUEST
    # Overrides may stand before, between and behind the options; argparse hands back those behind.
    asked.words = [*asked.words, *more]
    where, told = f"oneformer {asked.verb}", f"see oneformer {asked.verb} --help"
    stray = next((w for w in asked.words if w.startswith("-")), None)
    if stray:
        raise UserError(f"there is no option {stray}", where=where, hint=told)
    if more and not VERBS[asked.verb].takes_words:
        raise UserError(f"{more[0]!r} is one word too many", where=where, hint=told)
    if asked.verb == "explain":
        return _explain(asked)
    if asked.verb == "completion":
        _print(_completion(asked.shell))
        return DONE
    return _act(asked) if VERBS[asked.verb].takes_spec else _show(_module(asked.verb).run(asked.words), asked)


def _module(verb: str) -> Any:
    return import_module(VERBS[verb].module)


def _act(asked: argparse.Namespace) -> int:
    """Load the spec, say its warnings, run the action and show what it returns."""
    from oneformer.runs.log import set_up_logging
    from oneformer.spec.load import load

    verb = asked.verb
    if asked.spec is None and not asked.words:
        raise UserError("no spec is given", where=f"oneformer {verb}", hint=f"for example: {VERBS[verb].example}")
    loaded = load(asked.spec, asked.words, action=verb)
    for warning in loaded.warnings:
        _say(f"warning: {warning}")
    set_up_logging(verbose=loaded.spec.train.verbose)
    result = _module(verb).run(loaded.spec, dry_run=asked.dry_run)
    return _show_plan(loaded.spec, result, asked) if asked.dry_run else _show(result, asked)


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
    """Print a result as a table or as JSON; None prints nothing."""
    if result is None:
        return DONE
    if asked.json:
        import json

        from oneformer.runs.atomic import plain

        value = result.to_dict() if hasattr(result, "to_dict") else result
        _print(json.dumps(plain(value), indent=2, ensure_ascii=False))
        return DONE
    text = result.table() if hasattr(result, "table") else str(result)
    if text:
        _print(text.rstrip("\n"))
    return DONE


def _explain(asked: argparse.Namespace) -> int:
    from oneformer.spec.explain import as_text, explain

    told = explain(asked.key)
    return _show(told if asked.json else as_text(told), asked)


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
    wide = max(map(len, VERBS))
    # A table of our own: argparse's breaks the line after the longest name.
    actions = "\n".join(f"    {name:<{wide}}  {verb.help}" for name, verb in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="oneformer",
        usage="oneformer ACTION [-e SPEC] [section.key=value ...]",
        description=f"One model for semantic, instance and panoptic segmentation.\n\nactions:\n{actions}",
        epilog=f"examples:\n{rows}\n\nhelp on one action: oneformer train --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"oneformer {__version__}")
    commands = parser.add_subparsers(dest="verb", prog="oneformer", help=argparse.SUPPRESS)
    for name, verb in VERBS.items():
        one = commands.add_parser(
            name,
            description=verb.help[:1].upper() + verb.help[1:] + ".",
            epilog=f"example:\n  {verb.example}" + (_ON_KEYS.format(name=name) if verb.takes_spec else ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name != "completion":
            one.add_argument("--json", action="store_true", help="print the result as JSON")
        one.add_argument("--traceback", action="store_true", help="show where a fault of the program happened")
        _arguments(one, name, verb)
    return parser


def _arguments(one: argparse.ArgumentParser, name: str, verb: Verb) -> None:
    if verb.takes_spec:
        one.add_argument("-e", "--experiment_spec", dest="spec", metavar="SPEC", help="YAML file")
        one.add_argument("--dry-run", action="store_true", help="print the resolved spec and the files, then stop")
        one.add_argument("words", nargs="*", metavar="section.key=value", help="laid over the file; the last wins")
    elif name == "explain":
        one.add_argument("key", help="dotted key or section, such as train.optim.lr")
    elif name == "completion":
        one.add_argument("shell", choices=["bash", "zsh"])
    elif name == "default_specs":
        one.add_argument(
            "words", nargs="*", metavar="ACTION|results_dir=DIR", help="sections of one action; target folder"
        )
    if not verb.takes_words:
        one.set_defaults(words=[])


def _completion(shell: str) -> str:
    """A static script: verbs first, then options, then file names."""
    verbs = " ".join(VERBS)
    body = f"""_oneformer() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{verbs} --help --version" -- "$word"))
    elif [[ "$word" == -* ]]; then
        COMPREPLY=($(compgen -W "-e --dry-run --json --traceback --help" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _oneformer oneformer"""
    return body if shell == "bash" else f"autoload -U +X bashcompinit && bashcompinit\n{body}"
