"""Administration of access: how the policy, credentials and issuers are changed, and by whom."""
