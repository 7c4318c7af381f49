from __future__ import annotations

import logging
import warnings

import click
import pytest
from click.testing import CliRunner

from mergekit_spectral import __version__
from mergekit_spectral.command_line.command import Command
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


def test_short_helps_are_whole():
    output = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    for name, command in main.commands.items():
        assert f"  {name.ljust(7)}  {command.short_help}\n" in output
    assert "..." not in output.partition("Commands:")[2]


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_fits_a_terminal(command: str):
    result = CliRunner().invoke(main, [command, "--help"], terminal_width=80)
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_quiet_commands_print_no_warnings(caplog: pytest.LogCaptureFixture):
    @click.command(cls=Command)
    def noisy() -> None:
        warnings.warn("of a library", UserWarning, stacklevel=1)
        logging.getLogger("mergekit").warning("of mergekit")
        logging.getLogger("mergekit").error("an error")

    assert CliRunner().invoke(noisy, ["--quiet"]).exit_code == 0
    assert caplog.messages == ["an error"]
    assert isinstance(CliRunner().invoke(noisy).exception, UserWarning)
    logging.getLogger("mergekit").warning("afterwards")
    assert caplog.messages == ["an error", "afterwards"]
