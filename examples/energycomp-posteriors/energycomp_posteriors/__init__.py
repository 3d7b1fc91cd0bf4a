"""Posteriors of single observations, composed over their prior: networks of sbi as components."""
