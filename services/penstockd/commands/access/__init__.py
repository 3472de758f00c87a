"""Who may do what: administration of consumers, credentials, roles and the policy's history."""
