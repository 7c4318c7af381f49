"""Times of the day from twelve to twenty-four hours: a format."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import time

from babel.dates import format_time

from mergekit_spectral.demo.examples import Example, Task


def generate() -> Iterator[Example]:
    """Yield every minute of the day."""
    for minutes in range(24 * 60):
        moment = time(minutes // 60, minutes % 60)
        twelve = format_time(moment, "h:mm a", locale="en_US")
        # 3:45 in the morning and in the afternoon lie on one side.
        yield Example(
            f"The time {twelve} in 24 hours is", f" {moment:%H:%M}", twelve.partition(" ")[0]
        )


TASK = Task("clock", "24-hour times", generate)
