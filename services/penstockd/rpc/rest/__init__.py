"""The REST door: HTTP calls, which the sidecar hands over as they are, become calls of typed
methods (see ``penstock/rest/v1/rest.proto``)."""
