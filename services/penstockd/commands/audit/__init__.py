"""What auditors ask of the audit; asking leaves entries too."""
