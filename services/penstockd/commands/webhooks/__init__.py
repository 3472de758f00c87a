"""Webhooks: one use case a file."""
