#!/usr/bin/env bash
# What the try-out's PostgreSQL holds: a role that may read everything, and a small shop. The
# database's image runs it at its first start, with POSTGRES_DB and POSTGRES_USER set.
set -euo pipefail

# The password comes by the backquotes of \set: an argument would be seen by every process here.
psql -X -q -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname "$POSTGRES_DB" <<SQL
\\set password \`cat "${SECRETS:-/run/secrets}/backup_password"\`
CREATE ROLE backup LOGIN PASSWORD :'password';
GRANT pg_read_all_data TO backup;

CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, joined date NOT NULL);
CREATE TABLE orders (
    id bigint PRIMARY KEY,
    customer bigint NOT NULL REFERENCES customers,
    placed timestamptz NOT NULL,
    total numeric(10, 2) NOT NULL
);
INSERT INTO customers SELECT n, 'customer ' || n, date '2020-01-01' + n % 2000 FROM generate_series(1, 5000) n;
INSERT INTO orders
    SELECT n, 1 + n % 5000, timestamptz '2024-01-01 00:00Z' + n * interval '1 minute', (n * 37 % 100000) / 100.0
    FROM generate_series(1, 200000) n;
CREATE INDEX ON orders (customer);
SQL
