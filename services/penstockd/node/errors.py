"""Errors that keep a node from starting or stopping. Each message is fit for the console.

NodeError
├── FolderUnusable     the data folder cannot be written, or PostgreSQL's user cannot reach it
├── AlreadyRunning     another supervisor holds the data folder
├── PortInUse          the public port is taken
├── CertificateUnusable  a certificate or key cannot be read, does not fit or has expired
├── ConfigRefused      Envoy refused its configuration
├── ProcessFailed      a process did not start, or did not become ready in time
├── VaultUnusable      the place of the backups cannot be reached (see vault)
└── BackupFailed       a backup cannot be made, found or restored (see backup)
"""


class NodeError(Exception):
    """The node cannot start or stop."""


class FolderUnusable(NodeError):
    """The data folder cannot be used."""


class AlreadyRunning(NodeError):
    """Another supervisor runs on this data folder."""


class PortInUse(NodeError):
    """The public port is taken by another process."""


class CertificateUnusable(NodeError):
    """A certificate, key or list of authorities cannot be used."""


class ConfigRefused(NodeError):
    """Envoy refused its configuration."""


class ProcessFailed(NodeError):
    """A process did not start or did not become ready."""
