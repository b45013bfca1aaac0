"""A shell -> the script that completes commands, options, keys of the spec and file names in it."""

from __future__ import annotations

from oneformer.actions.verbs import COMMON, ON_SPEC, ROOTS, VERBS, Argument, Verb
from oneformer.schema.inputs import ACTIONS

SHELLS = ("bash", "zsh", "fish")


def run(shell: str) -> str:
    """The script of one of `SHELLS`."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def keys() -> list[str]:
    """What may stand before an equals sign: keys of the spec and their short names."""
    from oneformer.spec.shorthand import NAMES
    from oneformer.spec.tree import leaves

    return [*leaves(), *NAMES]


def _sections() -> list[str]:
    from oneformer.spec.tree import sections

    return list(sections())


def options(verb: Verb) -> dict[str, str]:
    """Option -> what it does, of one command, each spelling for itself."""
    found = {"--help": "show the help", **COMMON}
    if verb.takes_spec:
        found |= ON_SPEC | {option: told for option, (_, told) in ROOTS.items()}
    found |= {a.name: a.help for a in verb.arguments if _is_option(a)}
    return {spelling: told for names, told in found.items() for spelling in names.split("/")}


def _words(name: str, verb: Verb) -> list[str]:
    """The words, beside options and keys, that a command knows."""
    words = [a for a in verb.arguments if not _is_option(a)]
    actions = ACTIONS if any("ACTION" in a.metavar for a in words) else ()
    folder = ["results_dir="] if name == "default_specs" else []
    return [*(choice for a in words for choice in a.choices), *actions, *folder]


def _is_option(argument: Argument) -> bool:
    return argument.name.startswith("-")


def _takes_keys(verb: Verb) -> bool:
    return verb.takes_spec or any("section.key=value" in a.metavar for a in verb.arguments)


def _first_words() -> dict[str, list[str]]:
    """First word -> the second words of a group, none for a command of one word."""
    found: dict[str, list[str]] = {}
    for name in VERBS:
        first, _, second = name.partition(" ")
        found.setdefault(first, []).extend([second] if second else [])
    return found


def _cases() -> list[tuple[str, str, str]]:
    """Command -> its words and options, and which keys it completes: `=` with an equals sign, `.` bare, or none."""
    rows = []
    for name, verb in VERBS.items():
        kind = "." if name == "explain" else "=" if _takes_keys(verb) else ""
        rows.append((name, " ".join([*_words(name, verb), *options(verb)]), kind))
    return rows


def _bash() -> str:
    first = _first_words()
    groups = "".join(
        f'        {name}) [ "$COMP_CWORD" -eq 2 ] && words="{" ".join(more)} --help" && files="" ;;\n'
        for name, more in first.items()
        if more
    )
    cases = "".join(f'        "{name} "*) words="{words}"; keys="{kind}" ;;\n' for name, words, kind in _cases())
    return f"""_oneformer_keys="{" ".join(keys())}"
_oneformer_sections="{" ".join(_sections())}"
_oneformer() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words="" keys="" files=1 key rest
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{" ".join(first)} --help --version"
        files=""
    fi
    case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}} " in
{cases}    esac
    case "${{COMP_WORDS[1]}}" in
{groups}    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ "$word" == -* ]] && return
    if [ -n "$keys" ] && [ -n "$word" ]; then
        for key in $(compgen -W "$_oneformer_keys" -- "$word"); do
            rest="${{key#"$word"}}"
            case "$rest" in
                *.*) COMPREPLY+=("$word${{rest%%.*}}.") ;;
                *) [ "$keys" = "=" ] && COMPREPLY+=("$key=") || COMPREPLY+=("$key") ;;
            esac
        done
        [ "$keys" = "." ] && COMPREPLY+=($(compgen -W "$_oneformer_sections" -- "$word"))
        case "${{COMPREPLY[0]}}" in *.|*=) compopt -o nospace 2>/dev/null ;; esac
    fi
    [ -n "$files" ] && COMPREPLY+=($(compgen -f -- "$word"))
}}
complete -o filenames -F _oneformer oneformer"""


def _zsh() -> str:
    first = _first_words()
    verbs = "\n".join(f"        {_quoted(f'{name}:{_told(name)}')}" for name in first)
    groups = "".join(
        f"        {name}) (( CURRENT == 3 )) && {{ compadd -- {' '.join(more)}; return }} ;;\n"
        for name, more in first.items()
        if more
    )
    cases = "".join(
        f"        {_quoted(name + ' ')}*) offered=({words}); keys={_quoted(kind)} ;;\n"
        for name, words, kind in _cases()
    )
    return f"""#compdef oneformer
_oneformer_keys=({" ".join(keys())})
_oneformer_sections=({" ".join(_sections())})
_oneformer() {{
    local -a offered verbs
    local keys=""
    verbs=(
{verbs}
    )
    if (( CURRENT == 2 )); then
        _describe command verbs
        return
    fi
    case "${{words[2]}}" in
{groups}    esac
    case "${{words[2]}} ${{words[3]}} " in
{cases}    esac
    if [[ "${{words[CURRENT]}}" == -* ]]; then
        compadd -- ${{(M)offered:#-*}}
        return
    fi
    compadd -- ${{offered:#-*}}
    [[ "$keys" == "=" ]] && compadd -S = -- $_oneformer_keys
    [[ "$keys" == "." ]] && compadd -- $_oneformer_keys $_oneformer_sections
    _files
}}
compdef _oneformer oneformer"""


def _fish() -> str:
    lines = [
        f"set -g _oneformer_keys {' '.join(keys())}",
        f"set -g _oneformer_sections {' '.join(_sections())}",
        "complete -c oneformer -e",
        "complete -c oneformer -n __fish_use_subcommand -f",
    ]
    for name, more in _first_words().items():
        lines.append(_fish_line("__fish_use_subcommand", f"-f -a {name}", _told(name)))
        seen = f"__fish_seen_subcommand_from {name}; and not __fish_seen_subcommand_from {' '.join(more)}"
        lines += [_fish_line(_quoted(seen), f"-f -a {word}", VERBS[f"{name} {word}"].help) for word in more]
    for name, verb in VERBS.items():
        seen = _quoted("; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split()))
        lines += [_fish_line(seen, _fish_option(option), told) for option, told in options(verb).items()]
        words = [_quoted(" ".join(_words(name, verb)))] if _words(name, verb) else []
        if name == "explain":
            words.append("'$_oneformer_keys $_oneformer_sections' -f")
        elif _takes_keys(verb):
            words.append("'$_oneformer_keys='")
        lines += [_fish_line(seen, f"-a {word}") for word in words]
    return "\n".join(lines)


def _fish_line(when: str, what: str, told: str = "") -> str:
    line = f"complete -c oneformer -n {when} {what}"
    return f"{line} -d {_quoted(told, fish=True)}" if told else line


def _fish_option(option: str) -> str:
    return f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"


def _told(first: str) -> str:
    """What a command does, or of a group its commands."""
    return VERBS[first].help if first in VERBS else ", ".join(_first_words()[first])


def _quoted(text: str, *, fish: bool = False) -> str:
    """A text in single quotes, for zsh or fish."""
    return "'" + text.replace("'", r"\'" if fish else r"'\''") + "'"
