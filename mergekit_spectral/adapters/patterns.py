"""Which of a configuration's patterns a module's name matches, as peft decides it.

An adapter from the hub may hold a regular expression that takes years to match. Python's `re`
cannot be interrupted, so all but the simplest are matched in a separate process with a time limit.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from peft.utils.other import get_pattern_key

SECONDS = 10.0
"""The longest that the patterns of one adapter may take."""

# Without groups, alternatives and counts, two repetitions cannot take long.
_SIMPLE = re.compile(r"[\w.^$\\-]*([*+][\w.^$\\-]*){0,2}")

# What peft's get_pattern_key does, for all names at once.
_PROGRAM = r"""
import json, re, sys
patterns, names = json.load(sys.stdin)
own = [(pattern, re.compile(rf"(.*\.)?({pattern})$")) for pattern in patterns]
found = {name: next((p for p, e in own if e.match(name)), name) for name in names}
json.dump(found, sys.stdout)
"""


def matched_patterns(patterns: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return for each name the first pattern that it matches, or the name itself.

    Raises:
        re.error: if a pattern is no regular expression.
        TimeoutError: if matching takes longer than `SECONDS`.
    """
    for pattern in patterns:
        try:
            re.compile(rf"(.*\.)?({pattern})$")
        except (RecursionError, OverflowError) as error:
            raise re.error(str(error), pattern) from None
    if all(_SIMPLE.fullmatch(pattern) for pattern in patterns):
        return {name: get_pattern_key(patterns, name) for name in names}
    try:
        answer = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([patterns, names]),
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    except (subprocess.CalledProcessError, OSError) as error:
        raise re.error(f"matching it failed: {error}") from error
    found: dict[str, str] = json.loads(answer.stdout)
    return found
