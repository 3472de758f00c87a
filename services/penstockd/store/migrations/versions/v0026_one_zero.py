"""One zero: floats that were stored as -0.0 become 0, which is what every write stores now."""

from alembic import op

from penstockd.store.script import run_script

revision = "0026"
down_revision = "0025"

SETTLE = """
DO $$
DECLARE held record;
BEGIN
    FOR held IN
        SELECT c.oid::regclass AS name,
               string_agg(format('%1$I = %1$I + 0', a.attname), ', ') AS settled,
               string_agg(format('%I::text = ''-0''', a.attname), ' OR ') AS signed
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE n.nspname = 'data' AND c.relkind = 'r'
          AND a.atttypid IN ('real'::regtype, 'double precision'::regtype)
        GROUP BY c.oid
    LOOP
        EXECUTE format('UPDATE %s SET %s WHERE %s', held.name, held.settled, held.signed);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), SETTLE)
