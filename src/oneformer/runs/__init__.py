"""A results folder -> paths, resolved spec, status lines, seeds and logs of one run."""

from oneformer.runs.folder import RunFolder, run_path
from oneformer.runs.seed import seed_everything
from oneformer.runs.status import StatusLog

__all__ = ["RunFolder", "StatusLog", "run_path", "seed_everything"]
