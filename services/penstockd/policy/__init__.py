"""Roles and grants become Views: what one principal may see of one dataset, and do with it."""
