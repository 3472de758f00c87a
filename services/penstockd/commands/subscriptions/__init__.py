"""Named subscriptions: feeds whose place the hub keeps, and that several workers may share."""
