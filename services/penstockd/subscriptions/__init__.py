"""Named subscriptions: leases of stretches of the change log, to several workers."""
