-- The tables of Benana, and the trigger that tells every process of a change.
--
-- Idempotent: it may be applied again and again, also to a database in which an earlier system made
-- the first two tables (with the columns of the two CREATE TABLE below); its rows are kept. The
-- tables are made in the current schema. No function relies on the name of that schema, nor on the
-- search_path of the session that fires a trigger, in which somebody may have functions of the names
-- of PostgreSQL's own: the schema may be renamed, or restored under another name.
--
-- ASCII alone, so that it can be applied to a database of any encoding.

CREATE TABLE IF NOT EXISTS plugins (
    id VARCHAR(255) PRIMARY KEY,
    name VARCHAR(255) NOT NULL UNIQUE,
    description TEXT,
    version VARCHAR(100) NOT NULL,
    author VARCHAR(255),
    type VARCHAR(100) NOT NULL DEFAULT 'static',
    path VARCHAR(500),
    binary_path VARCHAR(500),
    source_path VARCHAR(500),
    status VARCHAR(50) NOT NULL DEFAULT 'active',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE IF NOT EXISTS plugin_endpoints (
    id BIGSERIAL PRIMARY KEY,
    plugin_id VARCHAR(255) NOT NULL REFERENCES plugins(id) ON DELETE CASCADE,
    method VARCHAR(10) NOT NULL,
    path VARCHAR(500) NOT NULL,
    handler VARCHAR(255) NOT NULL,
    type VARCHAR(50) NOT NULL DEFAULT 'REST',
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);

-- The columns that such an earlier table lacks.
--   generation     grows whenever what is served changes. (id, generation) decides what a process
--                  loads, never a timestamp.
--   source_digest  the source that binary_path was compiled from. NULL asks a publishing host to
--                  compile source_path.
--   error          what is wrong with the newest source, while an older version serves. With the
--                  key generation: why no process can load that generation.
ALTER TABLE plugins ADD COLUMN IF NOT EXISTS generation BIGINT NOT NULL DEFAULT 1;
ALTER TABLE plugins ADD COLUMN IF NOT EXISTS source_digest VARCHAR(32);
ALTER TABLE plugins ADD COLUMN IF NOT EXISTS error JSONB;

-- So that `INSERT INTO plugins (name, source_path) VALUES (...)` is enough.
ALTER TABLE plugins ALTER COLUMN id SET DEFAULT gen_random_uuid()::text;
ALTER TABLE plugins ALTER COLUMN version SET DEFAULT '';

-- NOT VALID: rows that are there already are kept as they are.
ALTER TABLE plugins DROP CONSTRAINT IF EXISTS plugins_name_check;
ALTER TABLE plugins ADD CONSTRAINT plugins_name_check
    CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$') NOT VALID;
ALTER TABLE plugins DROP CONSTRAINT IF EXISTS plugins_status_check;
ALTER TABLE plugins ADD CONSTRAINT plugins_status_check
    CHECK (status IN ('active', 'inactive')) NOT VALID;

-- Far below the end of the type, and the trigger refuses to set a generation beyond
-- 4611686018427387904, so there is room to count up. An older row that has none left is set back
-- (below).
ALTER TABLE plugins DROP CONSTRAINT IF EXISTS plugins_generation_check;
ALTER TABLE plugins ADD CONSTRAINT plugins_generation_check
    CHECK (generation <= 9000000000000000000) NOT VALID;

CREATE INDEX IF NOT EXISTS plugin_endpoints_plugin_id ON plugin_endpoints (plugin_id);
CREATE INDEX IF NOT EXISTS plugin_endpoints_segment
    ON plugin_endpoints (split_part(ltrim(path, '/'), '/', 1));

-- Every archive that may be served. A host without the source folder loads the same bytes from here.
--   metadata    version, description, author and endpoints, [[method, path, handler], ...], as they
--               are recorded while this version serves: who sets binary_path gets them (below).
--               Without "completed" it is of an older Benana: a description or author that the
--               manifest gave is missing in it.
CREATE TABLE IF NOT EXISTS plugin_versions (
    plugin_name VARCHAR(255) NOT NULL,
    source_digest VARCHAR(32) NOT NULL,
    archive BYTEA NOT NULL,
    archive_sha256 CHAR(64) NOT NULL,
    metadata JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (plugin_name, source_digest)
);

--   reload      how this version goes live: {"how": "hot" or "fresh", "why", "advice", "forced"}.
--               "fresh" has it loaded by new processes alone; forced: the author says so, in
--               plugin.yaml. NULL as long as nobody has found that out: hot.
--   answered    which routes answered in the version before, and not yet in this one, and which in
--               this one, too: {"generation", "at", "before", "templates", "since"}, of one
--               generation of the row, since "at" (seconds of Unix time).
--               Known only where fresh processes are to load this one.
ALTER TABLE plugin_versions ADD COLUMN IF NOT EXISTS reload JSONB;
ALTER TABLE plugin_versions ADD COLUMN IF NOT EXISTS answered JSONB;

--   finding     the same, as its rehearsal found it for what comes after it: what the libraries that
--               it uses keep. Where "reload" is NULL, it counts for the version itself too.
ALTER TABLE plugin_versions ADD COLUMN IF NOT EXISTS finding JSONB;

-- Folders that never were valid plugins, and why.
CREATE TABLE IF NOT EXISTS plugin_failures (
    name VARCHAR(255) PRIMARY KEY,
    source_path TEXT NOT NULL,
    error JSONB NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp()
);

-- The processes that serve, and what each of them runs. Nothing here notifies anybody. The tables
-- are unlogged, so that no publication includes them: a replica would take its publisher's processes
-- for its own.
--   generation  what the process runs of the plugin; NULL if nothing.
--   reconciled  the generation of the row that the process has acted on.
-- A database of an older Benana also has milliseconds and recorded_at in plugin_loads. They stay
-- there: nobody reads them, but the workers of that version write them, and such workers may run
-- beside newer ones, or be brought back.
CREATE UNLOGGED TABLE IF NOT EXISTS plugin_workers (
    id VARCHAR(36) PRIMARY KEY,
    host VARCHAR(255) NOT NULL,
    pid INTEGER NOT NULL,
    generations_alive INTEGER NOT NULL DEFAULT 0,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp()
);

-- What else a process says of itself; NULL for a process of an older Benana.
--   machine, started   tell, on the same machine, whether the process still runs: a boot of a kernel
--                      and its namespace of process ids, and clock ticks since that boot.
--   master, crew       its master's process id, and how many workers that wants.
--   status, reasons    what its health check says: ready, degraded, starting or unavailable.
ALTER TABLE plugin_workers ADD COLUMN IF NOT EXISTS machine VARCHAR(100);
ALTER TABLE plugin_workers ADD COLUMN IF NOT EXISTS started BIGINT;
ALTER TABLE plugin_workers ADD COLUMN IF NOT EXISTS master INTEGER;
ALTER TABLE plugin_workers ADD COLUMN IF NOT EXISTS crew INTEGER;
ALTER TABLE plugin_workers ADD COLUMN IF NOT EXISTS status VARCHAR(20);
ALTER TABLE plugin_workers ADD COLUMN IF NOT EXISTS reasons JSONB;

CREATE UNLOGGED TABLE IF NOT EXISTS plugin_loads (
    worker_id VARCHAR(36) NOT NULL,
    plugin_name VARCHAR(255) NOT NULL,
    plugin_id VARCHAR(255) NOT NULL,
    generation BIGINT,
    reconciled BIGINT NOT NULL,
    state VARCHAR(20) NOT NULL CHECK (state IN ('serving', 'unloaded', 'loading', 'failed')),
    error JSONB,
    PRIMARY KEY (worker_id, plugin_name)
);

-- No foreign key to plugin_workers: a restore under a running server could not create it again,
-- because processes are deleted from there meanwhile.
ALTER TABLE plugin_loads DROP CONSTRAINT IF EXISTS plugin_loads_worker_id_fkey;

-- owner: this process alone runs the plugin, on its host or on all.
ALTER TABLE plugin_loads ADD COLUMN IF NOT EXISTS owner BOOLEAN NOT NULL DEFAULT false;

CREATE INDEX IF NOT EXISTS plugin_loads_plugin_name ON plugin_loads (plugin_name);

-- An older Benana made these two tables as logged ones.
DO $$
DECLARE
    found RECORD;
BEGIN
    FOR found IN
        SELECT p.pubname, r.prrelid::regclass AS relation
        FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
        WHERE r.prrelid IN ('plugin_loads'::regclass, 'plugin_workers'::regclass)
    LOOP
        EXECUTE format('ALTER PUBLICATION %I DROP TABLE %s', found.pubname, found.relation);
    END LOOP;
    FOR found IN
        SELECT c.oid::regclass AS relation FROM pg_class c WHERE c.relpersistence = 'p'
            AND c.oid IN ('plugin_loads'::regclass, 'plugin_workers'::regclass)
        ORDER BY c.relname
    LOOP
        EXECUTE format('ALTER TABLE %s SET UNLOGGED', found.relation);
    END LOOP;
END;
$$;

-- Runs under the row's lock, so that no two changes get the same generation.
CREATE OR REPLACE FUNCTION stamp_plugin_change() RETURNS TRIGGER AS $$
BEGIN
    IF NEW.name !~ '^[a-z][a-z0-9_]{0,62}$' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', CONSTRAINT = 'plugins_name_check',
            MESSAGE = format('the name of the plugin is %L, expected 1 to 63 of a-z, 0-9 and _, '
                'a letter first', NEW.name),
            HINT = 'A row that has such a name from before can be renamed or deleted.';
    END IF;
    -- The plugin's code and its archives hold its name. So a row that serves an archive keeps its
    -- name, unless the same statement sets it to an archive of the new name. A row whose archive
    -- has another name may be renamed: that is how a wrong name is put right.
    IF TG_OP = 'UPDATE' AND NEW.name <> OLD.name AND NEW.binary_path IS NOT NULL
        AND substring(OLD.binary_path FROM '[^/]*$')
            = OLD.name || '-' || left(right(OLD.binary_path, 36), 32) || '.pyz'
        AND substring(NEW.binary_path FROM '[^/]*$')
            <> NEW.name || '-' || left(right(NEW.binary_path, 36), 32) || '.pyz'
    THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', CONSTRAINT = 'plugins_name_kept',
            MESSAGE = format('the plugin %L cannot be renamed to %L while it serves %s: its code '
                'and its archives have its name', OLD.name, NEW.name,
                substring(NEW.binary_path FROM '[^/]*$')),
            HINT = format('Rename its folder, and the name in its code, to %s: that registers it '
                'anew and unregisters %s.', NEW.name, OLD.name);
    END IF;
    IF NEW.generation > 4611686018427387904
        AND (TG_OP = 'INSERT' OR NEW.generation > OLD.generation + 1)
    THEN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', CONSTRAINT = 'plugins_generation_check',
            MESSAGE = format('the generation of the plugin %L is set to %s, expected '
                '4611686018427387904 at most', NEW.name, NEW.generation),
            HINT = format('This loads it again: UPDATE plugins SET generation = generation + 1 '
                'WHERE name = %L;', NEW.name);
    END IF;
    -- Compares the bytes of the rows: somebody may have added a column whose type has no `=` (json).
    IF TG_OP = 'INSERT' OR OLD *= NEW THEN
        RETURN NEW;
    END IF;
    -- A status that only the earlier system knew: the CHECK would refuse every change of its row.
    IF NEW.status = OLD.status AND NEW.status NOT IN ('active', 'inactive') THEN
        NEW.status := 'inactive';
    END IF;
    IF NEW.source_digest IS NOT DISTINCT FROM OLD.source_digest THEN
        IF NEW.binary_path IS DISTINCT FROM OLD.binary_path THEN
            NEW.source_digest := COALESCE(
                substring(NEW.binary_path FROM '-([0-9a-f]{32})[.]pyz$'), OLD.source_digest);
        ELSIF NEW.source_path IS DISTINCT FROM OLD.source_path THEN
            NEW.source_digest := NULL;
        END IF;
    END IF;
    IF (NEW.id, NEW.name, NEW.status, NEW.binary_path, NEW.generation)
        IS DISTINCT FROM (OLD.id, OLD.name, OLD.status, OLD.binary_path, OLD.generation)
    THEN
        NEW.generation := GREATEST(NEW.generation, OLD.generation + 1);
    END IF;
    -- An error belongs to the generation or the source that it was found in.
    IF NEW.error IS NOT NULL AND NEW.error = OLD.error AND (
        (NEW.generation <> OLD.generation AND NEW.error ? 'generation')
        OR NEW.source_path IS DISTINCT FROM OLD.source_path)
    THEN
        NEW.error := NULL;
    END IF;
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END;
$$ LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp;

-- The source digest that a row's binary_path names, NULL if it names no archive of the plugin, as
-- `records.artifact_digest` reads it: only the last part counts.
CREATE OR REPLACE FUNCTION plugin_digest(plugin TEXT, path TEXT) RETURNS TEXT AS $$
    SELECT CASE
        WHEN substring(path FROM '[^/]*$') = plugin || '-' || left(right(path, 36), 32) || '.pyz'
        THEN substring(path FROM '-([0-9a-f]{32})[.]pyz$')
    END;
$$ LANGUAGE sql IMMUTABLE;

-- Whether Falcon's router refuses two templates together: they are the same, or the first segments
-- that differ have their fields at the same places. (Before the first difference they are the same;
-- after it they are on different branches.)
CREATE OR REPLACE FUNCTION uri_templates_exclude(one TEXT, other TEXT) RETURNS BOOLEAN AS $$
DECLARE
    field CONSTANT TEXT := '[{][^}]*[}]';  -- without backslashes, which a session may escape
    ours TEXT[] := regexp_split_to_array(ltrim(one, '/'), '/');
    theirs TEXT[] := regexp_split_to_array(ltrim(other, '/'), '/');
BEGIN
    FOR i IN 1 .. least(cardinality(ours), cardinality(theirs)) LOOP
        IF ours[i] <> theirs[i] THEN
            RETURN ours[i] ~ field AND theirs[i] ~ field
                AND regexp_replace(ours[i], field, 'v', 'g')
                    = regexp_replace(theirs[i], field, 'v', 'g');
        END IF;
    END LOOP;
    RETURN cardinality(ours) = cardinality(theirs);
END;
$$ LANGUAGE plpgsql IMMUTABLE;

-- A row describes the version that it serves. Whoever sets binary_path in psql chooses a version that
-- is kept, and this trigger fills in the rest of the row. A publish writes all of that itself, and
-- says so by the setting benana.publishing.
-- The function sets its search_path to the schema of the table, because the session that fires it
-- may have any; the SET clause restores the session's own at the end.
CREATE OR REPLACE FUNCTION describe_plugin_version() RETURNS TRIGGER AS $$
DECLARE
    digest TEXT;
    kept JSONB;
BEGIN
    PERFORM set_config('search_path', quote_ident(TG_TABLE_SCHEMA) || ', pg_temp', true);
    digest := plugin_digest(NEW.name, NEW.binary_path);
    SELECT v.metadata INTO kept FROM plugin_versions v
        WHERE v.plugin_name = NEW.name AND v.source_digest = digest
        FOR KEY SHARE;
    IF NOT FOUND THEN
        IF NEW.binary_path IS NOT DISTINCT FROM OLD.binary_path THEN
            RETURN NEW;  -- renamed: a worker finds no archive of this name, and the row says so
        END IF;
        RAISE EXCEPTION USING
            ERRCODE = CASE WHEN digest IS NULL THEN 'check_violation'
                ELSE 'foreign_key_violation' END,
            CONSTRAINT = 'plugins_binary_path_kept',
            MESSAGE = CASE WHEN digest IS NULL
                THEN format('binary_path of the plugin %L is %L, expected the path of one of its '
                    'archives, %s-<digest>.pyz', NEW.name, NEW.binary_path, NEW.name)
                ELSE format('the version %s of the plugin %L is not kept', digest, NEW.name) END,
            HINT = format('The versions that are: SELECT source_digest, '
                'metadata->>''version'' AS version, created_at FROM plugin_versions '
                'WHERE plugin_name = %L ORDER BY created_at DESC;', NEW.name);
    END IF;
    NEW.version := COALESCE(kept->>'version', NEW.version);
    IF kept ? 'completed' OR kept->>'description' <> '' THEN
        NEW.description := kept->>'description';
    END IF;
    IF kept ? 'completed' OR kept->>'author' <> '' THEN
        NEW.author := kept->>'author';
    END IF;
    RETURN NEW;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

-- The same for plugin_endpoints, once all rows of the statement are changed: so two plugins can swap
-- their routes in one statement. It takes the lock of a publish after the rows are locked. One thing
-- is left to the workers, whose error the row then shows: a first segment that the server has
-- reserved for itself since the version was published.
CREATE OR REPLACE FUNCTION record_plugin_routes() RETURNS TRIGGER AS $$
DECLARE
    changed TEXT[];
    clash RECORD;
BEGIN
    PERFORM set_config('search_path', quote_ident(TG_TABLE_SCHEMA) || ', pg_temp', true);
    IF TG_OP = 'INSERT' THEN
        -- A row without a version was written by a person; a publish or a restored dump has it.
        WITH described AS (
            UPDATE plugins p SET version = v.metadata->>'version',
                description = COALESCE(p.description, v.metadata->>'description'),
                author = COALESCE(p.author, v.metadata->>'author'),
                source_digest = COALESCE(p.source_digest, v.source_digest)
            FROM new_rows n JOIN plugin_versions v ON v.plugin_name = n.name
                AND v.source_digest = plugin_digest(n.name, n.binary_path)
            WHERE p.id = n.id AND n.version = ''
            RETURNING p.id
        ) SELECT array_agg(id) INTO changed FROM described;
    ELSE
        SELECT array_agg(c.id) INTO changed FROM (
            SELECT id, name, binary_path FROM new_rows
            EXCEPT SELECT id, name, binary_path FROM old_rows) c
        JOIN plugin_versions v ON v.plugin_name = c.name
            AND v.source_digest = plugin_digest(c.name, c.binary_path)
        WHERE jsonb_typeof(v.metadata->'endpoints') = 'array';
    END IF;
    IF changed IS NULL THEN
        RETURN NULL;
    END IF;
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('binary_path is set in a transaction that is %s: it would not see a '
                'route that is published meanwhile', current_setting('transaction_isolation')),
            HINT = 'Use a transaction that is READ COMMITTED.';
    END IF;
    PERFORM pg_advisory_xact_lock(108187783097954);  -- 0x62656E616E62, as in app/database/locks.py

    DELETE FROM plugin_endpoints WHERE plugin_id = ANY(changed);
    INSERT INTO plugin_endpoints (plugin_id, method, path, handler)
        SELECT p.id, e.endpoint->>0, e.endpoint->>1, e.endpoint->>2
        FROM plugins p JOIN plugin_versions v ON v.plugin_name = p.name
            AND v.source_digest = plugin_digest(p.name, p.binary_path)
        CROSS JOIN jsonb_array_elements(v.metadata->'endpoints') WITH ORDINALITY e (endpoint, n)
        WHERE p.id = ANY(changed)
        ORDER BY p.id, e.n;

    SELECT p.name, p.version, found.path, other.name AS owner, found.other_path INTO clash
    FROM (
        SELECT mine.plugin_id, mine.path, theirs.plugin_id AS other_id, theirs.path AS other_path
        FROM plugin_endpoints mine JOIN plugin_endpoints theirs
            ON split_part(ltrim(theirs.path, '/'), '/', 1)
                = split_part(ltrim(mine.path, '/'), '/', 1)
        WHERE mine.plugin_id = ANY(changed)
        UNION ALL
        SELECT mine.plugin_id, mine.path, theirs.plugin_id, theirs.path
        FROM plugin_endpoints mine JOIN plugin_endpoints theirs
            ON split_part(ltrim(theirs.path, '/'), '/', 1) LIKE '%{%'
        WHERE mine.plugin_id = ANY(changed)
            AND split_part(ltrim(mine.path, '/'), '/', 1) LIKE '%{%'
    ) found
    JOIN plugins p ON p.id = found.plugin_id
    JOIN plugins other ON other.id = found.other_id
    WHERE found.plugin_id <> found.other_id
        AND uri_templates_exclude(found.path, found.other_path)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'exclusion_violation', CONSTRAINT = 'plugin_endpoints_owner',
            MESSAGE = CASE WHEN ltrim(clash.path, '/') = ltrim(clash.other_path, '/')
                THEN format('the route %s of the plugin %L is owned by the plugin %L',
                    clash.path, clash.name, clash.owner)
                ELSE format('the route %s of the plugin %L excludes the route %s of the plugin %L',
                    clash.path, clash.name, clash.other_path, clash.owner) END,
            DETAIL = format('The version %s of the plugin %L has it.', clash.version, clash.name),
            HINT = format('Choose a version without it, or take it from the plugin %L first; an '
                'inactive plugin keeps its routes.', clash.owner);
    END IF;
    RETURN NULL;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

-- These two run with their owner's rights, for roles that may change nothing but plugins. So nobody
-- else may make triggers of them, and they read only the tables in the schema of plugins.
REVOKE ALL ON FUNCTION describe_plugin_version(), record_plugin_routes() FROM PUBLIC;

-- The payload is a hint: every process re-reads the row. A payload of 8,000 bytes or more would make
-- the statement that changes the row fail, so `new_data` is null where it would be too long.
-- `schema` tells the changes of several Benanas in one database apart. A statement names no plugin:
-- everything is compared.
CREATE OR REPLACE FUNCTION notify_plugin_change() RETURNS TRIGGER AS $$
DECLARE
    changed RECORD;  -- and not `plugins`: that would be looked up in the caller's search_path
    payload TEXT;
BEGIN
    IF TG_LEVEL = 'STATEMENT' THEN
        payload := json_build_object(
            'operation', TG_OP, 'schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME, 'id', NULL,
            'name', NULL, 'new_data', NULL, 'timestamp', extract(epoch FROM clock_timestamp()));
        PERFORM pg_notify('plugin_changes', payload);
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' THEN
        changed := OLD;
    ELSE
        changed := NEW;
    END IF;
    payload := json_build_object(
        'operation', TG_OP, 'schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME,
        'id', changed.id, 'name', changed.name,
        'new_data', CASE WHEN TG_OP <> 'DELETE' THEN row_to_json(changed) END,
        'timestamp', extract(epoch FROM clock_timestamp()));
    IF octet_length(payload) >= 7900 THEN
        payload := json_build_object(
            'operation', TG_OP, 'schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME,
            'id', changed.id, 'name', changed.name, 'new_data', NULL,
            'timestamp', extract(epoch FROM clock_timestamp()));
    END IF;
    PERFORM pg_notify('plugin_changes', payload);
    IF TG_OP = 'UPDATE' AND OLD.name <> NEW.name THEN
        PERFORM pg_notify('plugin_changes', json_build_object(
            'operation', TG_OP, 'schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME,
            'id', OLD.id, 'name', OLD.name, 'new_data', NULL,
            'timestamp', extract(epoch FROM clock_timestamp()))::text);
    END IF;
    RETURN NULL;
END;
$$ LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp;

-- Triggers of the earlier system that call functions of these names, whatever the triggers are
-- called, would notify twice or fail.
DO $$
DECLARE
    found RECORD;
BEGIN
    FOR found IN
        SELECT tgname, tgrelid::regclass AS relation FROM pg_trigger
        WHERE NOT tgisinternal
            AND tgrelid IN ('plugins'::regclass, 'plugin_endpoints'::regclass,
                'plugin_versions'::regclass)
            AND tgfoid IN ('notify_plugin_change'::regproc, 'stamp_plugin_change'::regproc,
                'describe_plugin_version'::regproc, 'record_plugin_routes'::regproc)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', found.tgname, found.relation);
    END LOOP;
END;
$$;

-- While there is no trigger: set back a row whose generation cannot grow any more.
UPDATE plugins SET generation = 4611686018427387904 WHERE generation > 9000000000000000000;

-- Triggers of one event run in the order of their names.
CREATE TRIGGER plugins_stamp BEFORE INSERT OR UPDATE ON plugins
    FOR EACH ROW EXECUTE FUNCTION stamp_plugin_change();
CREATE TRIGGER plugins_version BEFORE UPDATE ON plugins
    FOR EACH ROW WHEN (NEW.binary_path IS NOT NULL
        AND (NEW.name, NEW.binary_path) IS DISTINCT FROM (OLD.name, OLD.binary_path)
        AND current_setting('benana.publishing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION describe_plugin_version();
CREATE TRIGGER plugins_routes_insert AFTER INSERT ON plugins
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
    WHEN (current_setting('benana.publishing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION record_plugin_routes();
CREATE TRIGGER plugins_routes_update AFTER UPDATE ON plugins
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT
    WHEN (current_setting('benana.publishing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION record_plugin_routes();
CREATE TRIGGER plugins_notify_row AFTER INSERT OR DELETE ON plugins
    FOR EACH ROW EXECUTE FUNCTION notify_plugin_change();
CREATE TRIGGER plugins_notify_update AFTER UPDATE ON plugins
    FOR EACH ROW WHEN (OLD.* *<> NEW.*) EXECUTE FUNCTION notify_plugin_change();
CREATE TRIGGER plugins_notify_truncate AFTER TRUNCATE ON plugins
    FOR EACH STATEMENT EXECUTE FUNCTION notify_plugin_change();

-- What a person changes there may contradict the rows: it is looked at, and put right. What follows
-- from a change of plugins (a cascade, a trigger) is told by that.
CREATE TRIGGER plugin_endpoints_notify
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plugin_endpoints FOR EACH STATEMENT
    WHEN (pg_trigger_depth() = 0
        AND current_setting('benana.publishing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION notify_plugin_change();
CREATE TRIGGER plugin_versions_notify
    AFTER UPDATE OF plugin_name, source_digest, archive, archive_sha256, metadata
        OR DELETE OR TRUNCATE ON plugin_versions FOR EACH STATEMENT
    WHEN (pg_trigger_depth() = 0
        AND current_setting('benana.publishing', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION notify_plugin_change();

-- Only the triggers that notify fire also where a logical replica applies rows. The others have done
-- their work where the row was changed.
ALTER TABLE plugins ENABLE ALWAYS TRIGGER plugins_notify_row;
ALTER TABLE plugins ENABLE ALWAYS TRIGGER plugins_notify_update;
ALTER TABLE plugins ENABLE ALWAYS TRIGGER plugins_notify_truncate;
ALTER TABLE plugin_endpoints ENABLE ALWAYS TRIGGER plugin_endpoints_notify;
ALTER TABLE plugin_versions ENABLE ALWAYS TRIGGER plugin_versions_notify;
