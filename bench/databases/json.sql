-- :gb gigabytes of documents: nested, with keys that recur and values that do not.

\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET synchronous_commit = off;
SET max_parallel_workers_per_gather = 0;
DO 'BEGIN PERFORM setseed(0.42); END';

CREATE TABLE documents (id bigint NOT NULL, body jsonb NOT NULL);
INSERT INTO documents
SELECT n, jsonb_build_object(
    'id', n, 'user', md5((n % 50000)::text), 'at', timestamptz '2024-01-01 00:00:00+00' + n * interval '7 seconds',
    'tags', (ARRAY['["new", "web"]', '["app"]', '["web", "returning", "mobile"]'])[1 + n % 3]::jsonb,
    'price', round((random() * 100)::numeric, 2), 'active', n % 3 = 0,
    'address', jsonb_build_object('street', 'Street ' || (n * 7 % 900), 'city', 'City ' || (n % 350),
                                  'zip', lpad((n * 31 % 99999)::text, 5, '0'), 'country', 'DE'),
    'session', md5(random()::text), 'device', jsonb_build_object('os', 'os-' || n % 7, 'width', 320 * (1 + n % 6)))
FROM generate_series(1, (2750000 * :gb)::bigint) n;
