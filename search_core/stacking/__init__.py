"""Several seeds of one search in one stack: a pass for all, with each seed's own result.

The networks lie side by side, channel by channel, in one tensor; convolutions take them as groups.
A step calls hardly more kernels than that of one network. `StackedRun` trains the runs of several
seeds so; all else of a run, its checkpoints too, stays its own.
"""

from search_core.stacking.run import Outcome, StackedRun

__all__ = ["Outcome", "StackedRun"]
