"""What a check has to say, each in a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mergekit_spectral.recipe.text import Key, RecipeText, dotted

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a recipe, or worth knowing.

    Attributes:
        severity: whether the merge fails, or does not do what the recipe seems to ask for, or
            neither.
        message: a sentence.
        key: what it is about, as in ``models[0].parameters.weight``; empty if the whole recipe.
        line: of the key, from 1.
        absent: whether it is that a model is not on this machine, so that nothing is known of it.
    """

    severity: Severity
    message: str
    key: str = ""
    line: int | None = None
    absent: bool = False

    def place(self, recipe: Path) -> str:
        """Return where it is, as in ``recipe.yml:8``."""
        return f"{recipe}:{self.line}" if self.line else str(recipe)


@dataclass
class Findings:
    """The findings of one check, in the order in which they are made.

    Attributes:
        text: the recipe's, for the lines; None if it cannot be read.
        all: the findings.
    """

    text: RecipeText | None
    all: list[Finding] = field(default_factory=list)

    def error(self, message: str, key: Key = ()) -> None:
        """Say why the merge would fail."""
        self._add("error", message, key)

    def warning(self, message: str, key: Key = ()) -> None:
        """Say what would go otherwise than the recipe seems to ask for."""
        self._add("warning", message, key)

    def absent(self, message: str, key: Key = ()) -> None:
        """Warn that a model is not on this machine."""
        self._add("warning", message, key, absent=True)

    def note(self, message: str, key: Key = ()) -> None:
        """Say what is worth knowing."""
        self._add("note", message, key)

    @property
    def errors(self) -> list[Finding]:
        """The errors alone."""
        return [finding for finding in self.all if finding.severity == "error"]

    @property
    def failed(self) -> bool:
        """Whether there is an error."""
        return bool(self.errors)

    def by_line(self) -> tuple[Finding, ...]:
        """Return them in the order of their lines, those about the whole recipe last."""
        return tuple(sorted(self.all, key=lambda one: (one.line is None, one.line)))

    def _add(self, severity: Severity, message: str, key: Key, absent: bool = False) -> None:
        line = self.text.line(key) if self.text else None
        finding = Finding(severity, message, dotted(key), line, absent)
        if finding not in self.all:
            self.all.append(finding)
