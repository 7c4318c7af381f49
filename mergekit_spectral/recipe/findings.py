"""Findings: sentences about a recipe, each with its severity and the key that it is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from textwrap import indent
from typing import Literal

from mergekit_spectral.recipe.text import Key, RecipeText

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a recipe, or worth knowing.

    Attributes:
        severity: an error if the merge fails, a warning if it does not do what the recipe seems to
            ask for, a note if it is only worth knowing.
        message: a sentence.
        key: what it is about, as ("models", 0, "parameters", "weight"); empty for the whole recipe.
        line: the line of the key, from 1; None until `locate` has found it, or if there is none.
        absent: whether it reports a model that is not on this machine, so that nothing is known
            about it.
        cure: what to paste, if that is known: keys of the recipe, as YAML, or commands.
    """

    severity: Severity
    message: str
    key: Key = ()
    line: int | None = None
    absent: bool = False
    cure: str | None = None

    def place(self, recipe: Path) -> str:
        """Return the file and the line, as in ``recipe.yml:8``."""
        return f"{recipe}:{self.line}" if self.line else str(recipe)

    def in_words(self, recipe: Path, label: str | None = None) -> str:
        """Return the finding with its place, and below it, indented, what cures it.

        Args:
            recipe: the recipe's file.
            label: the severity as it is to be shown, such as with a color.
        """
        line = f"{self.place(recipe)}: {label or self.severity}: {self.message}"
        return f"{line}\n{indent(self.cure, '    ')}" if self.cure else line


def error(message: str, key: Key = (), cure: str | None = None) -> Finding:
    """Return why the merge would fail."""
    return Finding("error", message, key, cure=cure)


def warning(message: str, key: Key = (), cure: str | None = None) -> Finding:
    """Return what the merge would do other than what the recipe seems to ask for."""
    return Finding("warning", message, key, cure=cure)


def note(message: str, key: Key = ()) -> Finding:
    """Return what is worth knowing."""
    return Finding("note", message, key)


def absent(message: str, key: Key = ()) -> Finding:
    """Return a warning that a model is not on this machine."""
    return Finding("warning", message, key, absent=True)


def find_errors(findings: Iterable[Finding]) -> list[Finding]:
    """Return the errors alone."""
    return [finding for finding in findings if finding.severity == "error"]


def locate(findings: Iterable[Finding], text: RecipeText | None) -> list[Finding]:
    """Give findings the lines of their keys, and keep a finding that was made twice once.

    Args:
        findings: in the order in which they were made.
        text: the recipe's, or None if it cannot be read.
    """
    if text is None:
        return list(findings)
    located = (
        finding if finding.line else replace(finding, line=text.line(finding.key))
        for finding in findings
    )
    return list(dict.fromkeys(located))


def sort_by_line(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings by their lines; those about the whole recipe are last."""
    return tuple(sorted(findings, key=lambda one: (one.line is None, one.line or 0)))


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …?" with the known name that is most like `name`, or list the names."""
    known = sorted(known)
    nearest = get_close_matches(name, known, n=1)
    if nearest:
        return f"did you mean {nearest[0]}?"
    return f"there are {', '.join(known)}." if known else "there are none."
