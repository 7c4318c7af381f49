"""What the package costs, measured: each module but the shared ones is a command with `--help`."""
