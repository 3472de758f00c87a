"""Named subscriptions: feeds whose position the hub keeps and that several workers can share."""
