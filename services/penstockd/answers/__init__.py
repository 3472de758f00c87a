"""What a caller gets when a call fails, in every shape: nothing here knows of gRPC's library."""
