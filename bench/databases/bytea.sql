-- :gb gigabytes of values that no compressor makes smaller: hash upon hash.

\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET synchronous_commit = off;
SET max_parallel_workers_per_gather = 0;

CREATE TABLE files (id bigint NOT NULL, content bytea NOT NULL);
ALTER TABLE files ALTER COLUMN content SET STORAGE EXTERNAL;
INSERT INTO files
SELECT n, (SELECT string_agg(sha256((n * 1000 + part)::text::bytea), '') FROM generate_series(1, 160) part)
FROM generate_series(1, (97000 * :gb)::bigint) n;
