"""Find the pattern of an adapter's configuration that a module's name matches, as peft does.

An adapter from the Hub may contain a regular expression that takes years to match. Python's `re`
cannot be interrupted. Therefore only simple patterns are matched in this process; all others are
matched in a separate process with a time limit.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from peft.utils.other import get_pattern_key

SECONDS = 10.0
"""Time limit for matching the patterns of one adapter, in seconds."""

# A pattern without groups, alternatives and counts, and with at most two repetitions, is fast.
_SIMPLE = re.compile(r"[\w.^$\\-]*([*+][\w.^$\\-]*){0,2}")

# Does the same as peft's get_pattern_key, for all names at once.
_PROGRAM = r"""
import json, re, sys
patterns, names = json.load(sys.stdin)
own = [(pattern, re.compile(rf"(.*\.)?({pattern})$")) for pattern in patterns]
found = {name: next((p for p, e in own if e.match(name)), name) for name in names}
json.dump(found, sys.stdout)
"""


def match_patterns(patterns: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return the first pattern that each name matches; for a name without a match, the name itself.

    Raises:
        re.error: if a pattern is not a regular expression.
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
