"""The use cases of shapes, one a file."""
