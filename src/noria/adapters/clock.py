"""The system's clock."""

import time
from datetime import UTC, datetime


class SystemClock:
    """`ports.Clock` on the machine's own time."""

    def now(self) -> datetime:
        """See `ports.Clock`."""
        return datetime.now(UTC)

    def now_us(self) -> int:
        """See `ports.Clock`."""
        return time.time_ns() // 1000
