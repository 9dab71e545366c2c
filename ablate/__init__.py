"""Ablation studies of knowledge distillation: a study file in, comparison tables and loss curves out."""

import ablate.results  # noqa: F401 (a package and a call have this name: once the package is imported, the call stays)
from ablate.run import doctor, gc, load, plan, results, run, verify

__all__ = ["doctor", "gc", "load", "plan", "results", "run", "verify"]

__version__ = "0.1.0"
