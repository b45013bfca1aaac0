"""A question to a language model -> values that the space could have drawn; or, in the end, that there are none.

It is asked again where it is silent, told what is wrong where it errs, and given up after so many tries. Nobody takes
its place unless the caller decides so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oneformer.automl import prompt
from oneformer.automl.answer import Advice, Wrong, read
from oneformer.automl.endpoint import LONGEST_S, Endpoint, Refusal, Silent, endpoint_of, pause
from oneformer.automl.objective import Goal
from oneformer.automl.space import Space
from oneformer.automl.trial import Trial
from oneformer.spec.llm import LlmSpec

log = logging.getLogger(__name__)

CORRECTIONS = 2  # times that one answer may be mended
ASKED, FAILED = "asked", "not advised"  # events


class Unadvised(Exception):
    """The language model has failed for good; the text says why."""


def _untold(what: str, detail: object) -> None:
    """Nobody keeps it."""


@dataclass(frozen=True)
class Advisor:
    """A language model that is asked for trials.

    Args:
        endpoint: where it is.
        retries: how often it is asked again when it fails.
        notes: of the user, for it.
        faults: what the spec's own rules say against values.
        tell: keeps an event, with its detail in plain types.
        wait: lets so many seconds pass.
    """

    endpoint: Endpoint
    retries: int
    notes: str
    faults: Callable[[Mapping[str, Any]], list[str]]
    tell: Callable[[str, object], None] = _untold
    wait: Callable[[float], None] = time.sleep

    def next(self, space: Space, goal: Goal, trials: Sequence[Trial], *, ranges: bool) -> Advice:
        """The values of the next trial.

        Args:
            space: with the ranges that hold now.
            goal: what is searched for.
            trials: all so far.
            ranges: whether the ranges may be changed with it.

        Raises:
            Unadvised: no usable answer, after all tries.
        """
        question = prompt.asked(space, goal, trials, ranges=ranges, notes=self.notes)

        def conversation() -> Advice:
            return self._talked(question, space, trials, ranges=ranges)

        return self._patiently(conversation)

    def greet(self) -> None:
        """Make sure that the model answers at all. Raises Unadvised."""
        self._patiently(lambda: self.endpoint.ask(prompt.greeting()))

    def _patiently(self, attempt: Callable[[], Any]) -> Any:
        tries = 0
        while True:
            tries += 1
            try:
                return attempt()
            except Refusal as error:
                self.tell(FAILED, {"tries": tries, "why": str(error)})
                raise Unadvised(str(error)) from None
            except (Silent, Wrong) as error:
                why = error.why if isinstance(error, Silent) else f"its answers cannot be taken: {error}"
                wanted = error.wait if isinstance(error, Silent) else 0.0
            self.tell(FAILED, {"tries": tries, "why": why})
            if wanted > LONGEST_S:
                raise Unadvised(f"{why}, and wants to be left alone for {wanted:.0f} s")
            if tries > self.retries:
                raise Unadvised(f"{why} ({tries} {'try' if tries == 1 else 'tries'})")
            seconds = pause(tries, wanted)
            log.warning("the language model gives no trial: %s; asked again in %.0f s", why, seconds)
            self.wait(seconds)

    def _talked(self, question: prompt.Messages, space: Space, trials: Sequence[Trial], *, ranges: bool) -> Advice:
        """One question, and what is wrong with the answers told back."""
        for left in reversed(range(CORRECTIONS + 1)):
            answer = self.endpoint.ask(question)
            told = {"model": self.endpoint.model, "tokens": answer.tokens, "seconds": round(answer.seconds, 3)}
            try:
                advice = read(answer.text, space, ranges=ranges)
                if faults := self._against(advice, space, trials):
                    raise Wrong(faults)
            except Wrong as error:
                self.tell(ASKED, {**told, "faults": [self.endpoint.clean(fault) for fault in error.faults]})
                if not left:
                    raise
                question = prompt.corrected(question, answer.text, error.faults)
            else:
                self.tell(ASKED, told)
                return Advice(advice.values, self.endpoint.clean(advice.why), advice.ranges)
        raise AssertionError

    def _against(self, advice: Advice, space: Space, trials: Sequence[Trial]) -> list[str]:
        """What is wrong with values that are fine one by one."""
        tried = [t for t in trials if t.values == advice.values]
        if tried and len(trials) < space.points:
            return [f"this setting was tried before, as trial {tried[0].id}"]
        return self.faults(advice.values)


def advisor_of(
    spec: LlmSpec,
    *,
    needed_for: str,
    faults: Callable[[Mapping[str, Any]], list[str]],
    tell: Callable[[str, object], None],
    wait: Callable[[float], None],
) -> Advisor:
    """The language model that the settings name. Raises UserErrors where they name none."""
    endpoint = endpoint_of(spec, needed_for=needed_for)
    return Advisor(endpoint, spec.retries, spec.notes, faults, tell, wait)
