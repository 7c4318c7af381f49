"""The command ``mergekit-spectral``."""

from __future__ import annotations

import click

from mergekit_spectral import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mergekit-spectral")
def main() -> None:
    """Merge methods in spectral space for mergekit: DRM, KnOTS and STAR."""
