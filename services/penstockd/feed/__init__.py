"""The change log through Views, read once for all consumers that see the same, and its
retention."""
