"""Tasks of lm-evaluation-harness over the engine that is already loaded.

harness = Harness(config, task, models)                  # checks and loads everything, asks nothing
results = harness.measure("base", checkpoint, engine, identity)
records, found = harness_tasks({"base": results, ...}, confidence=0.95)
"""

from audit.utility.harness.compare import harness_tasks
from audit.utility.harness.records import HarnessResult, HarnessValue
from audit.utility.harness.session import Harness

__all__ = ["Harness", "HarnessResult", "HarnessValue", "harness_tasks"]
