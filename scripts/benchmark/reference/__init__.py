"""What a user would write instead of the hub: no token, no View, no audit."""
