"""Figures of the hub beside those of the tools a user would choose instead, from one run."""
