"""What the server answers, as frozen values.

Fields that this version does not know are left out, so that a newer server can be talked to. Times
are in UTC. A metric that was not finite is None.
"""

from dartboard.models.architectures import (
    Architecture,
    Discovery,
    Path,
    Paths,
    PathWithin,
    RankedArchitecture,
)
from dartboard.models.base import Result, Time, rfc3339
from dartboard.models.jobs import (
    Job,
    Log,
    Recommendation,
    Search,
    TestMeasurement,
    TestResult,
    Training,
    Trial,
    TrialCounts,
    Waiting,
)
from dartboard.models.progress import (
    AlphaGroup,
    AlphaLabel,
    AlphaSeries,
    AlphaTables,
    Event,
    EventPage,
    Point,
)
from dartboard.models.queue import (
    Check,
    Cluster,
    DispatcherSeen,
    Node,
    Queue,
    Readiness,
    RunningSearch,
    TrialProgress,
    WaitingSearch,
)
from dartboard.models.submissions import (
    DryRun,
    Preset,
    SpaceSize,
)

__all__ = [
    "AlphaGroup",
    "AlphaLabel",
    "AlphaSeries",
    "AlphaTables",
    "Architecture",
    "Check",
    "Cluster",
    "Discovery",
    "DispatcherSeen",
    "DryRun",
    "Event",
    "EventPage",
    "Job",
    "Log",
    "Node",
    "Path",
    "PathWithin",
    "Paths",
    "Point",
    "Preset",
    "Queue",
    "RankedArchitecture",
    "Readiness",
    "Recommendation",
    "Result",
    "RunningSearch",
    "Search",
    "SpaceSize",
    "TestMeasurement",
    "TestResult",
    "Time",
    "Training",
    "Trial",
    "TrialCounts",
    "TrialProgress",
    "Waiting",
    "WaitingSearch",
    "rfc3339",
]
