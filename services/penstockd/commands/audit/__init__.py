"""Queries of auditors, which leave audit entries too."""
