"""The commands of the CLI, one a file; each imports what it runs inside its function, so that `--help` stays fast."""
