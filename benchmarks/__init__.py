"""Benchmarks, a folder for each question. The editable install of the repository makes this package importable."""
