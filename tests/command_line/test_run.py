"""The options of `mergekit-spectral run`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergekit_spectral.command_line.run import run


@pytest.mark.parametrize(
    ("given", "address"),
    [
        (["--ray"], ""),
        (["--ray", "auto"], "auto"),
        (["--ray", "10.0.0.1:6379"], "10.0.0.1:6379"),
        (["--ray", "[fd00::1]:6379"], "[fd00::1]:6379"),
        (["--ray", "ray://head:10001"], "ray://head:10001"),
        (["--ray=head"], "head"),
        ([], None),
    ],
)
def test_ray_may_be_anywhere(given: list[str], address: str | None, tmp_path: Path):
    path = tmp_path / "recipe.yml"
    path.write_text("")
    out = tmp_path / "merged"
    orders = [(given, [str(path)], [str(out)]), ([str(path)], given, [str(out)])]
    orders += [([str(path)], [str(out)], given), ([str(path)], [str(out)], [*given, "-q"])]
    for order in orders:
        found = run.make_context("run", [word for words in order for word in words]).params
        assert (found["recipe"], found["out"], found["ray"]) == (path, out, address)
