"""Exports: the file of a View in one state of the data, its run and its receipts."""
