"""Shapes: saved projections of a View for one receiver, compiled to SQL and evaluated in Python."""
