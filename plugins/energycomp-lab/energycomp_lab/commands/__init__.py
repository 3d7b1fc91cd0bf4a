"""The commands, one module each; `--help` imports neither torch nor diffusers."""
