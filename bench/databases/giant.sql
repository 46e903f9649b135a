-- One table of :gb gigabytes of COPY text: orders as a shop has them. The same seed gives the same
-- rows. Past the first gigabyte they are the first one's with other keys, which no compressor sees
-- across so many megabytes.
--
--   psql -v gb=1 -f bench/databases/giant.sql

\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET synchronous_commit = off;
SET max_parallel_workers_per_gather = 0;
DO 'BEGIN PERFORM setseed(0.42); END';

CREATE TEMP TABLE pool AS
SELECT sentence, string_agg(substr(md5((random() ^ 3 * 4000)::integer::text), 1, 3 + sentence % 5), ' ') AS text
FROM generate_series(0, 39999) sentence, generate_series(1, 4 + sentence % 12)
GROUP BY sentence;
ANALYZE pool;

CREATE TABLE giant (
    id       bigint NOT NULL,
    customer integer NOT NULL,
    status   text NOT NULL,
    placed   timestamptz NOT NULL,
    amount   numeric(12, 2) NOT NULL,
    weight   double precision,
    address  text NOT NULL,
    remark   text
);
INSERT INTO giant
SELECT n, 1 + floor(random() * 200000), (ARRAY['new', 'paid', 'packed', 'shipped', 'returned'])[1 + floor(5 * random() ^ 2)],
       timestamptz '2023-01-01 00:00:00+00' + n * interval '11 seconds' + random() * interval '9 seconds',
       round((random() * 900 + 3)::numeric, 2), CASE WHEN random() < 0.5 THEN round((random() * 40)::numeric, 3) END,
       floor(random() * 300) || ' ' || one.text, CASE WHEN random() < 0.4 THEN two.text END
FROM (SELECT n, floor(40000 * random())::integer AS first, floor(40000 * random())::integer AS second
      FROM generate_series(1, (6300000 * least(:gb, 1))::bigint) n) drawn
JOIN pool one ON one.sentence = first
JOIN pool two ON two.sentence = second;

CREATE PROCEDURE again(times integer) LANGUAGE plpgsql AS $$
DECLARE
    rows bigint := (SELECT count(*) FROM giant);
BEGIN
    FOR time IN 1 .. times LOOP
        INSERT INTO giant
        SELECT id + rows * time, customer + time, status, placed + time * interval '1 year', amount, weight, address, remark
        FROM giant WHERE id <= rows;
    END LOOP;
END
$$;
CALL again(ceil(:gb)::integer - 1);
DROP PROCEDURE again;
