"""Allowances: what consumers have used of their quotas, leased to processes in portions."""

from alembic import op

from penstockd.store.script import run_script

revision = "0035"
down_revision = "0034"

# hub.spender: a process that leases portions, and when its term ends unless it renews it.
# hub.allowance: what a consumer used of one limit in one period: ``used`` counts what was spent and
# what portions hold. The period of what is under way never ends.
# hub.portion: what one process holds of an allowance.
# hub.spending: what was spent of a portion; written in the transaction of the audit entry of the
# call that spent it. Its foreign key is the fence: nothing can be spent of a portion that was
# reclaimed, and none is reclaimed while a transaction that spends of it is open.
# hub.spike: when the bucket of a rate limit is full again; lost in a crash, which does no harm.
#
# Locks are taken in this order: spender, allowance, portion.
ALLOWANCES = """
CREATE TABLE hub.spender (
    spender_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    expire_time timestamptz NOT NULL
);
CREATE TABLE hub.allowance (
    allowance_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer_id  text COLLATE "C" NOT NULL,
    name         text COLLATE "C" NOT NULL,
    start_time   timestamptz      NOT NULL,
    end_time     timestamptz      NOT NULL,
    used         bigint           NOT NULL DEFAULT 0,
    UNIQUE (consumer_id, name, start_time)
);
CREATE INDEX allowance_end ON hub.allowance (end_time);
CREATE TABLE hub.portion (
    portion_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    allowance_id bigint NOT NULL REFERENCES hub.allowance,
    spender_id   bigint NOT NULL REFERENCES hub.spender,
    held         bigint NOT NULL,
    UNIQUE (allowance_id, spender_id)
);
CREATE INDEX portion_spender ON hub.portion (spender_id);
CREATE TABLE hub.spending (
    portion_id bigint NOT NULL,
    amount     bigint NOT NULL,
    CONSTRAINT spending_portion FOREIGN KEY (portion_id) REFERENCES hub.portion
);
CREATE INDEX spending_portion ON hub.spending (portion_id);
CREATE UNLOGGED TABLE hub.spike (
    consumer_id text COLLATE "C",
    name        text COLLATE "C",
    full_time   timestamptz NOT NULL,
    PRIMARY KEY (consumer_id, name)
);

-- Deletes the record of what was spent of a portion; returns the sum.
CREATE FUNCTION hub.fold_spending(wanted bigint) RETURNS bigint LANGUAGE sql AS $$
WITH gone AS (DELETE FROM hub.spending WHERE portion_id = wanted RETURNING amount)
SELECT coalesce(sum(amount), 0)::bigint FROM gone
$$;

-- Leases ``least`` at least of an allowance, ``wanted`` if there is enough, and up to ``ahead`` if
-- there is plenty; nothing, if there is less than ``least``. Then the other processes are asked to
-- return what they do not need of the allowance, if the spender ``asks`` for that. ``leased`` is
-- NULL if the term of the spender is over. ``account`` is the allowance, ``room`` what is left for
-- anybody, and ``elsewhere`` what other portions hold and have not spent.
CREATE FUNCTION hub.lease_allowance(
    lessee bigint, consumer text, named text, started timestamptz, ended timestamptz,
    most bigint, least_wanted bigint, wanted bigint, ahead bigint, asks boolean,
    OUT leased bigint, OUT account bigint, OUT granted bigint, OUT room bigint,
    OUT elsewhere bigint
) LANGUAGE plpgsql AS $$
DECLARE
    taken bigint;
    spent bigint;
BEGIN
    -- Whatever is spent of a portion is flushed after it; a lease that a crash undoes was not
    -- spent.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM FROM hub.spender WHERE spender_id = lessee AND expire_time > clock_timestamp()
    FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT allowance_id, used INTO account, taken FROM hub.allowance
    WHERE consumer_id = consumer AND name = named AND start_time = started FOR UPDATE;
    IF account IS NULL THEN
        INSERT INTO hub.allowance (consumer_id, name, start_time, end_time)
        VALUES (consumer, named, started, ended) ON CONFLICT DO NOTHING;
        SELECT allowance_id, used INTO account, taken FROM hub.allowance
        WHERE consumer_id = consumer AND name = named AND start_time = started FOR UPDATE;
    END IF;
    INSERT INTO hub.portion AS p (allowance_id, spender_id, held) VALUES (account, lessee, 0)
    ON CONFLICT (allowance_id, spender_id) DO UPDATE SET held = p.held
    RETURNING portion_id INTO leased;
    spent := hub.fold_spending(leased);
    room := greatest(most - taken, 0);
    granted := CASE WHEN room < least_wanted THEN 0 WHEN room < wanted THEN room
        ELSE greatest(wanted, least(ahead, room / 8)) END;
    UPDATE hub.portion SET held = held + granted - spent WHERE portion_id = leased;
    UPDATE hub.allowance SET used = used + granted WHERE allowance_id = account;
    room := room - granted;
    SELECT coalesce(sum(p.held - coalesce((
        SELECT sum(amount) FROM hub.spending AS s WHERE s.portion_id = p.portion_id), 0)), 0)
    INTO elsewhere FROM hub.portion AS p WHERE p.allowance_id = account AND p.portion_id <> leased;
    IF asks AND granted = 0 AND elsewhere > 0 THEN
        PERFORM pg_notify('penstock_allowance', account::text);
    END IF;
END $$;

-- Returns an amount of a portion that nobody needs; nothing happens if the portion is gone.
CREATE FUNCTION hub.return_allowance(returned bigint, amount bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM FROM hub.allowance AS a JOIN hub.portion AS p USING (allowance_id)
    WHERE p.portion_id = returned FOR UPDATE OF a;
    UPDATE hub.portion SET held = held - amount WHERE portion_id = returned;
    IF FOUND THEN
        UPDATE hub.allowance AS a SET used = a.used - amount
        FROM hub.portion AS p WHERE p.portion_id = returned AND a.allowance_id = p.allowance_id;
    END IF;
END $$;

-- Ends a portion: what was not spent of it returns to the allowance.
CREATE FUNCTION hub.close_portion(closed bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kept bigint;
    spent bigint;
    account bigint;
BEGIN
    PERFORM FROM hub.allowance AS a JOIN hub.portion AS p USING (allowance_id)
    WHERE p.portion_id = closed FOR UPDATE OF a;
    -- It waits for the transactions that spend of the portion.
    SELECT held, allowance_id INTO kept, account FROM hub.portion WHERE portion_id = closed
    FOR UPDATE;
    IF account IS NULL THEN
        RETURN;
    END IF;
    spent := hub.fold_spending(closed);
    UPDATE hub.allowance SET used = used - (kept - spent) WHERE allowance_id = account;
    DELETE FROM hub.portion WHERE portion_id = closed;
END $$;

-- Ends the portions of one spender, or of the next one whose term is over; returns whether there
-- was one. One transaction ends one spender: each locks its allowances in the same order.
CREATE FUNCTION hub.end_spender(only_one bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    SELECT spender_id INTO gone FROM hub.spender
    WHERE CASE WHEN only_one IS NULL THEN expire_time <= clock_timestamp()
        ELSE spender_id = only_one END
    ORDER BY spender_id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF gone IS NULL THEN
        RETURN false;
    END IF;
    PERFORM hub.close_portion(portion_id) FROM (
        SELECT portion_id FROM hub.portion WHERE spender_id = gone ORDER BY allowance_id) AS p;
    DELETE FROM hub.spender WHERE spender_id = gone;
    RETURN true;
END $$;

-- Takes up to ``wanted`` calls from the bucket of a rate; ``level`` is what is left in it, and
-- ``pause`` the seconds until there is one, if none was granted.
CREATE FUNCTION hub.take_spike(
    consumer text, named text, per_second float8, burst integer, wanted integer,
    OUT granted integer, OUT level float8, OUT pause float8
) LANGUAGE plpgsql AS $$
DECLARE
    ready timestamptz;
    moment timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT full_time INTO ready FROM hub.spike WHERE consumer_id = consumer AND name = named
    FOR UPDATE;
    IF ready IS NULL THEN
        INSERT INTO hub.spike VALUES (consumer, named, clock_timestamp()) ON CONFLICT DO NOTHING;
        SELECT full_time INTO ready FROM hub.spike WHERE consumer_id = consumer AND name = named
        FOR UPDATE;
    END IF;
    moment := clock_timestamp();
    -- A clock that was set back, or a rate that was lowered, must not refuse for longer than that.
    ready := least(greatest(ready, moment), moment + burst / per_second * interval '1 second');
    level := burst - extract(epoch FROM ready - moment)::float8 * per_second;
    granted := least(wanted, floor(level + 1e-6)::integer);
    IF granted > 0 THEN
        level := level - granted;
        UPDATE hub.spike SET full_time = ready + granted / per_second * interval '1 second'
        WHERE consumer_id = consumer AND name = named;
        pause := 0;
    ELSE
        granted := 0;
        pause := (1 - level) / per_second;
    END IF;
END $$;
"""


def upgrade() -> None:
    """Apply the script."""
    run_script(op.get_bind(), ALLOWANCES)
