"""What the shell completes when the tab key is pressed."""

from __future__ import annotations

import subprocess
import sys

import click
from click.shell_completion import CompletionItem, ShellComplete
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge

from mergekit_spectral.command_line import method_names
from mergekit_spectral.command_line.main import main
from mergekit_spectral.methods import SpectralMethod, catalog


def completed(*words: str) -> list[str]:
    """Return what the last word is completed to."""
    complete = ShellComplete(main, {}, "mergekit-spectral", "_MERGEKIT_SPECTRAL_COMPLETE")
    items: list[CompletionItem] = complete.get_completions(list(words[:-1]), words[-1])
    return [item.value for item in items]


def test_commands():
    assert completed("me") == ["methods"]
    assert completed("") == sorted(main.commands)


def test_names_of_methods():
    known = sorted(method.spec.name for method in registered_methods())
    assert completed("methods", "") == known
    assert completed("methods", "knots_d") == [name for name in known if name.startswith("knots_d")]
    assert completed("tune", "--methods", "is") == ["iso"]


def test_names_in_a_list():
    assert completed("tune", "--methods", "ties,ts") == ["ties,tsvm"]
    known = [method.spec.name for method in registered_methods()]
    assert completed("tune", "--methods", "ties,drm,") == sorted(
        f"ties,drm,{name}" for name in known if name not in ("ties", "drm")
    )


def test_the_names_are_those_of_the_methods():
    known = {method.spec.name: method for method in registered_methods()}
    assert set(method_names.method_names()) == known.keys()
    inner = {name for name, one in known.items() if isinstance(one, GeneralizedTaskArithmeticMerge)}
    assert set(method_names.TASK_ARITHMETIC) == inner
    assert all(isinstance(known[name], SpectralMethod) for name in method_names.SPECTRAL)
    assert method_names.ENTRY_POINTS == catalog.ENTRY_POINTS


def test_completion_imports_nothing_that_takes_long():
    code = (
        "import sys\n"
        "from click.shell_completion import ShellComplete\n"
        "from mergekit_spectral.command_line.main import main\n"
        "complete = ShellComplete(main, {}, 'mergekit-spectral', '_COMPLETE')\n"
        "assert complete.get_completions(['methods'], 'knots_t')\n"
        "assert complete.get_completions(['tune', '--methods'], 'drm,')\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"torch", "mergekit", "transformers", "peft", "numpy", "scipy", "pydantic", "rich"}
    assert not slow.intersection(done.stdout.split())


def test_the_command_is_a_module_too():
    done = subprocess.run(
        [sys.executable, "-m", "mergekit_spectral", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Usage: mergekit-spectral [OPTIONS] COMMAND")
    assert isinstance(main, click.Group)
