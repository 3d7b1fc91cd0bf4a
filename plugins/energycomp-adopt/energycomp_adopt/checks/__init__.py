"""The checks of `check_adoption`, one idea a file."""
