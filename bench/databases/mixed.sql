-- A database of about :gb gigabytes, as a shop's grows: orders with their lines, events with
-- JSON, customers, and small tables beside them. About as compressible as real rows are: words
-- with the frequencies of a language, random numbers, hashes and times. The same seed gives the
-- same rows.
--
--   psql -v gb=1 -f bench/databases/mixed.sql

\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET synchronous_commit = off;
SET max_parallel_workers_per_gather = 0;
SET work_mem = '64MB';
DO 'BEGIN PERFORM setseed(0.42); END';

CREATE TABLE countries (code char(2) PRIMARY KEY, name text NOT NULL, vat numeric(4, 2) NOT NULL);
INSERT INTO countries
SELECT chr(65 + n / 26) || chr(65 + n % 26), initcap(md5(n::text)), n % 27 FROM generate_series(0, 199) n;

-- 4,000 made-up words, the first ones far more frequent than the last.
CREATE TABLE words (id integer PRIMARY KEY, word text NOT NULL);
INSERT INTO words
SELECT n, string_agg(syllable, '' ORDER BY place)
FROM generate_series(0, 3999) n,
     LATERAL (SELECT place,
                     (ARRAY['ka', 'ro', 'mi', 'ten', 'sul', 'ver', 'an', 'do', 'pli', 'gor', 'es', 'tra', 'qui', 'lo', 'ben', 'uz'])
                         [1 + ('x' || substr(md5(n || '.' || place), 1, 4))::bit(16)::integer % 16] AS syllable
              FROM generate_series(1, 1 + ('x' || substr(md5(n::text), 1, 2))::bit(8)::integer % 4) place) syllables
GROUP BY n;

-- Sentences are drawn from a pool: quick to make, yet too many for a compressor's window.
CREATE TEMP TABLE pool AS
SELECT sentence, string_agg(word, ' ') AS text
FROM (SELECT sentence, floor(4000 * random() ^ 3)::integer AS word_id
      FROM generate_series(0, 59999) sentence, generate_series(1, 4 + sentence % 12)) drawn
JOIN words ON words.id = word_id
GROUP BY sentence;
ANALYZE pool;

CREATE TABLE customers (
    id       bigint NOT NULL,
    key      uuid NOT NULL,
    name     text NOT NULL,
    email    text NOT NULL,
    country  char(2) NOT NULL,
    balance  numeric(12, 2) NOT NULL,
    created  timestamptz NOT NULL,
    note     text
);
INSERT INTO customers
SELECT n, key, initcap(split_part(one.text, ' ', 1) || ' ' || split_part(one.text, ' ', 2)),
       split_part(one.text, ' ', 3) || '.' || n || '@example.com', country, balance, created,
       CASE WHEN noted THEN one.text END
FROM (SELECT n, floor(60000 * random())::integer AS first,
             overlay(overlay(md5(random()::text) PLACING '4' FROM 13) PLACING '8' FROM 17)::uuid AS key,
             chr(65 + (random() * 7)::integer) || chr(65 + (random() * 10)::integer) AS country,
             round((random() * 10000)::numeric, 2) AS balance,
             timestamptz '2020-01-01 00:00:00+00' + random() * interval '1800 days' AS created,
             random() < 0.3 AS noted
      FROM generate_series(1, (200000 * :gb)::bigint) n) drawn
JOIN pool one ON one.sentence = first;

CREATE TABLE orders (
    id           bigint NOT NULL,
    customer_id  bigint NOT NULL,
    status       text NOT NULL,
    placed       timestamptz NOT NULL,
    shipped      timestamptz,
    amount       numeric(12, 2) NOT NULL,
    currency     char(3) NOT NULL,
    address      text NOT NULL,
    remark       text
);
INSERT INTO orders
SELECT n, customer, (ARRAY['new', 'paid', 'packed', 'shipped', 'returned'])[status],
       placed, CASE WHEN after < interval '3 days' THEN placed + after END, amount,
       (ARRAY['EUR', 'USD', 'GBP'])[currency], house || ' ' || one.text, CASE WHEN remarked THEN two.text END
FROM (SELECT n, floor(60000 * random())::integer AS first, floor(60000 * random())::integer AS second,
             1 + floor(random() * 200000 * :gb) AS customer,
             1 + floor(5 * random() ^ 2)::integer AS status,
             timestamptz '2023-01-01 00:00:00+00' + n * interval '11 seconds' + random() * interval '9 seconds' AS placed,
             random() * interval '4 days' AS after,
             round((random() * 900 + 3)::numeric, 2) AS amount,
             1 + floor(3 * random() ^ 2)::integer AS currency,
             floor(random() * 300) AS house,
             random() < 0.4 AS remarked
      FROM generate_series(1, (1500000 * :gb)::bigint) n) drawn
JOIN pool one ON one.sentence = first
JOIN pool two ON two.sentence = second;

CREATE TABLE order_items (
    order_id    bigint NOT NULL,
    line        smallint NOT NULL,
    product_id  integer NOT NULL,
    quantity    integer NOT NULL,
    price       numeric(10, 2) NOT NULL,
    sku         text NOT NULL
);
INSERT INTO order_items
SELECT 1 + n / 3, n % 3, floor(random() * 50000), 1 + floor(random() ^ 3 * 12), round((random() * 300)::numeric, 2),
       'SKU-' || upper(substr(md5(random()::text), 1, 8))
FROM generate_series(1, (4500000 * :gb)::bigint) n;

CREATE TABLE events (
    id       bigint NOT NULL,
    at       timestamptz NOT NULL,
    kind     text NOT NULL,
    session  text NOT NULL,
    details  jsonb NOT NULL
);
INSERT INTO events
SELECT n, timestamptz '2024-01-01 00:00:00+00' + n * interval '3 seconds', (ARRAY['view', 'click', 'search', 'cart', 'pay'])[kind],
       md5((n / 12)::text),
       jsonb_build_object('path', '/' || replace(one.text, ' ', '/'), 'ms', ms, 'agent', agent, 'query', two.text, 'load', load)
FROM (SELECT n, floor(60000 * random())::integer AS first, floor(60000 * random())::integer AS second,
             1 + floor(5 * random() ^ 2)::integer AS kind, floor(random() * 2000) AS ms,
             'browser/' || floor(random() * 90) || '.' || floor(random() * 10) AS agent,
             round(random()::numeric, 6) AS load
      FROM generate_series(1, (1600000 * :gb)::bigint) n) drawn
JOIN pool one ON one.sentence = first
JOIN pool two ON two.sentence = second;

DROP TABLE pool;
ALTER TABLE customers ADD PRIMARY KEY (id);
ALTER TABLE orders ADD PRIMARY KEY (id);
ALTER TABLE events ADD PRIMARY KEY (id);
ANALYZE;
