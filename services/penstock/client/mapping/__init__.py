"""Mapping files: how the CSV files of another system become the records of datasets.

``plan`` reads a mapping file, ``table`` the CSV files; ``value`` makes one value, ``record``
whole records; ``load`` sends them to a hub.
"""
