"""The server's interface: the only place that depends on gRPC. Handlers validate, delegate to
commands and answer."""
