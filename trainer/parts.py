"""Which parts of the detector a fit uses: all of them, unless what one is worth is being measured."""

from dataclasses import dataclass, field

from edge_agent.contract.fusion import Fusion


@dataclass(frozen=True)
class Parts:
    """What takes part.

    Attributes:
        fusion: which sources of statistics count, and how they become one.
        trimming: leave out of the calibration what stands apart from the rest of it (`trainer.trimming`).
        ridge: fit the ridge regression of the highway; without it the highway says the newest sample again.
    """

    fusion: Fusion = field(default_factory=Fusion)
    trimming: bool = True
    ridge: bool = True
