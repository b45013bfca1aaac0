"""The `automl.llm` section: a language model that proposes settings, and what it may cost."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from oneformer.spec.field import Pattern, Unit


@dataclass
class LlmSpec:
    """A language model behind an OpenAI-compatible address, for `llm`, `hybrid` and `autoresearch`."""

    endpoint: str = ""
    """Base address, such as `https://host/v1` or `http://127.0.0.1:8000/v1`. It is sent the searched keys with their
    ranges, and of each trial the values, scores and failures; nothing of the data."""
    model: str = ""
    """Name of the model at that address."""
    auth_variable: Annotated[str, Pattern("^[A-Za-z_][A-Za-z0-9_]*$", "the name of an environment variable")] = (
        "AUTOML_LLM_API_KEY"
    )
    """Environment variable that holds the key of the address; where it is not set, none is sent."""
    temperature: Annotated[float | None, Ge(0), Le(2)] = None
    """How much its answers vary; null leaves it to the address."""
    max_tokens: Annotated[int, Ge(0)] = 4096
    """Longest answer; 0 leaves it to the address."""
    timeout_s: Annotated[float, Gt(0), Le(3600), Unit("s")] = 120.0
    """Time for one answer."""
    retries: Annotated[int, Ge(0), Le(20)] = 4
    """How often an address that does not answer, or answers nonsense, is asked again, each time after a longer pause;
    then the search stops (`fallback`)."""
    share: Annotated[float, Gt(0), Le(1)] = 0.5
    """Of `hybrid` and `autoresearch`: share of the trials that the language model proposes, evenly among the others,
    which come from TPE."""
    fallback: Literal["stop", "tpe", "qmc", "random"] = "stop"
    """Who proposes in its place where it fails for good: `stop` nobody, the search stops and goes on with the same
    command."""
    notes: str = ""
    """What it is told besides, such as what the images show and what was tried before."""
