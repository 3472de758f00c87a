"""The door: the only place that knows gRPC. Handlers validate, delegate to commands and answer."""
