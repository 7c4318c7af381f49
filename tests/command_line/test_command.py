from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from mergekit_spectral import __version__
from mergekit_spectral.command_line.main import main


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_has_an_example(command: str):
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert f"  mergekit-spectral {command}" in result.output.partition("Example")[2]
    assert "--quiet" in result.output
    assert "--verbose" in result.output


def test_version():
    assert CliRunner().invoke(main, ["--version"]).output.strip().endswith(__version__)


def test_a_traceback_comes_with_verbose_alone():
    plain = CliRunner().invoke(main, ["methods", "xyzzy"])
    verbose = CliRunner().invoke(main, ["methods", "xyzzy", "--verbose"])
    assert plain.exit_code == verbose.exit_code == 1
    assert "Traceback" not in plain.output
    assert "Traceback" in verbose.stderr
    assert verbose.stderr.endswith(plain.stderr)


def test_usage_has_a_status_of_its_own():
    assert CliRunner().invoke(main, ["methods", "--yaml"]).exit_code == 2
    assert isinstance(main, click.Group)
