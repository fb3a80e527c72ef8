"""Runs of several seeds of one search in one stack, each with its own result.

Side by side, the networks lie channel by channel in one tensor, and convolutions take them as
groups: a step calls hardly more kernels than that of one network. Where that is not possible, or
not the fastest, the runs train one after the other. Either way all else of a run, its checkpoints
too, stays its own.
"""

from search_core.stacking.run import Outcome, StackedRun

__all__ = ["Outcome", "StackedRun"]
