-- :tables tables that hold together what `giant` of the same size holds in one.
--
--   psql -v gb=1 -v tables=10000 -f bench/databases/many.sql

\ir giant.sql

CREATE PROCEDURE split(tables integer) LANGUAGE plpgsql AS $$
DECLARE
    rows bigint := (SELECT count(*) FROM giant);
BEGIN
    CREATE INDEX ON giant (id);
    FOR part IN 0 .. tables - 1 LOOP
        EXECUTE format('CREATE TABLE part_%s AS SELECT * FROM giant WHERE id > %s AND id <= %s',
                       part, rows * part / tables, rows * (part + 1) / tables);
        IF part % 500 = 499 THEN
            COMMIT;
        END IF;
    END LOOP;
    DROP TABLE giant;
END
$$;
CALL split(:tables);
DROP PROCEDURE split;
