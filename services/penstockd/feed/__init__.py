"""The change log as Views show it: events, read once for all who see the same, and its retention."""
