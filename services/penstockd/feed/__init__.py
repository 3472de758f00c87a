"""The change log as Views show it, read once for all who see the same, and its retention."""
