"""Run ``python -m mergekit_spectral``, the command ``mergekit-spectral``."""

from mergekit_spectral.command_line.main import main

if __name__ == "__main__":
    main(prog_name="mergekit-spectral")
