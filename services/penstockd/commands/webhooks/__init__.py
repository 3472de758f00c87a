"""Use cases of webhooks, one in each file."""
