"""Database roles: functions that need the owner's rights have them, for whom may call them."""

from alembic import op

from penstockd.store.script import run_script

revision = "0015"
down_revision = "0014"

# Partitions can be added and dropped by the owner of the tables alone. The functions that do it act
# as the owner, whoever calls them, and nobody may call them who was not let (store.roles). The path
# is fixed, or a caller's own functions and operators would run with the owner's rights.
DATABASE_ROLES = """
ALTER FUNCTION hub.add_change_partitions(integer) SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION hub.add_audit_partitions(integer) SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION hub.prune_log(bigint) SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp;
REVOKE ALL ON FUNCTION hub.add_change_partitions(integer), hub.add_audit_partitions(integer),
    hub.prune_log(bigint), hub.rebase_audit() FROM PUBLIC;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), DATABASE_ROLES)
