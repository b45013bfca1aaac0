"""What a search itself costs at a thousand trials: time of a decision, a proposal and records; memory, no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MOST_MS, MOST_MIB = 5.0, 150  # goal G9
# In a process of its own, whose memory is that of nothing else; times are the least of some rounds.
THOUSAND = """
import json, resource, sys, time
from pathlib import Path
from automl.simulated import brain
import oneformer.automl.controller
from oneformer.automl.ledger import Ledger
from oneformer.automl.trial import Checkpoint, Finished

mind = brain("asha", sampler="random", max_trials=1200, whole=27)
with Ledger(Path(sys.argv[1])) as ledger:
    def one():
        trials = list(ledger.trials.values())
        step = mind.schedule.next(trials)
        trial = step.trial
        if trial is None:
            proposal = mind.proposal(trials, step)
            trial = ledger.add(proposal.values, source=proposal.source)
        ledger.lease(trial, step.epoch, owner="me", until=0.0)
        score = trial.values["train.optim.lr"] + step.epoch
        done = Finished(score, 1.0, {"PQ": score}, {step.epoch: score}, Checkpoint("a.pth", "00", 7))
        ledger.finish(trial, done, last=step.epoch == 27)
    ledger._base.execute("PRAGMA synchronous=OFF")  # a thousand times the disk's own time, which is not the search's
    while len(ledger.trials) < 1000:
        one()
    def least(job, times, of):
        rounds = []
        for _ in range(of):
            began = time.process_time()
            for _ in range(times):
                job()
            rounds.append(1e3 * (time.process_time() - began) / times)
        return min(rounds)
    spent = least(one, 20, of=5)
    proposer, trials = brain("asha", max_trials=1200, whole=27).proposer, list(ledger.trials.values())
    learned = proposer.next(trials)  # the first one translates all trials, as the first after a new start does
    proposed = least(lambda: proposer.next(trials), 10, of=10)
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
told = {"ms": spent, "tpe_ms": proposed, "mib": used, "torch": "torch" in sys.modules, "source": learned.source}
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is another elsewhere")
def test_a_search_of_a_thousand_trials_costs_little_itself(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", THOUSAND, str(tmp_path)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    told = json.loads(done.stdout)
    print(told)
    assert told["source"] == "tpe" and not told["torch"]
    assert told["ms"] + told["tpe_ms"] < MOST_MS and told["mib"] < MOST_MIB
