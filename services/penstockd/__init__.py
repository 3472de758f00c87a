"""The Penstock hub: every surface of a data platform, derived from one Protobuf model."""
