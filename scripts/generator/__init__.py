"""Derives everything under gen/ from protos/."""
