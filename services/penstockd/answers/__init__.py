"""The answer to a call that fails, in every form. Nothing here depends on gRPC's library."""
