"""Figures of the hub beside those of what a user would take instead, from one run."""
