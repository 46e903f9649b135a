//! The tables of the load. Their definitions stay, except for the names that begin with `evo_` and `ev_p`, and the
//! labels of the enum.

/// Of tables that `definitions` changes.
pub const EVOLVING: usize = 8;
/// Partitions that `partitions` makes, attaches, detaches and drops.
pub const PARTITIONS: usize = 8;

pub fn tables() -> String {
    let mut script = TABLES.to_owned();
    for number in 0..EVOLVING {
        script.push_str(&format!(
            "CREATE TABLE evo_{number} ({});
             INSERT INTO evo_{number} SELECT g, 'v' || g, g FROM generate_series(1, 60) g;",
            columns(number)
        ));
        if number % 4 == 1 {
            script.push_str(&format!("ALTER TABLE evo_{number} REPLICA IDENTITY FULL;"));
        }
    }
    for number in 0..PARTITIONS / 2 {
        script.push_str(&format!(
            "CREATE TABLE ev_p{number} PARTITION OF ev FOR VALUES FROM ({0}) TO ({0} + 100);",
            number * 100
        ));
    }
    script.push_str("INSERT INTO ev SELECT g, g % 400, 'e' FROM generate_series(1, 300) g;");
    script
}

/// One in four has no key.
pub fn columns(number: usize) -> &'static str {
    match number % 4 {
        2 => "id int, v text, n int",
        1 => "id int NOT NULL, v text, n int",
        _ => "id int PRIMARY KEY, v text, n int",
    }
}

const TABLES: &str = r#"
    CREATE SCHEMA other;
    CREATE TYPE mood AS ENUM ('glad', 'sad', 'mad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TYPE point3 AS (x int, y text, z numeric);
    CREATE SEQUENCE tally;
    CREATE TABLE branches (bid int PRIMARY KEY, balance bigint NOT NULL, filler char(40));
    CREATE TABLE accounts (aid int PRIMARY KEY, bid int REFERENCES branches, balance bigint NOT NULL, filler text);
    CREATE TABLE history (aid int, delta int, at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE sloppy (a int, v text);
    CREATE TABLE doc (id int PRIMARY KEY, title text, body text); ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE whole (a int, b text, big text); ALTER TABLE whole REPLICA IDENTITY FULL;
    ALTER TABLE whole ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE bykey (id int, code text NOT NULL, v text, CONSTRAINT uqc UNIQUE (code));
    ALTER TABLE bykey REPLICA IDENTITY USING INDEX uqc;
    CREATE TABLE "Num Keys" (k1 numeric, "k 2" text, val text, g int GENERATED ALWAYS AS (length(val)) STORED,
        PRIMARY KEY (k1, "k 2"));
    CREATE TABLE longkey (k text PRIMARY KEY, v int); ALTER TABLE longkey ALTER k SET STORAGE EXTERNAL;
    CREATE TABLE boss (id int PRIMARY KEY, v text);
    CREATE TABLE minion (id bigserial PRIMARY KEY, boss int NOT NULL REFERENCES boss ON DELETE CASCADE);
    CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text,
        twice text GENERATED ALWAYS AS (v || v) STORED);
    CREATE TABLE odd (id int PRIMARY KEY, d positive, c point3, cs point3[], r int4range, tags text[], j jsonb,
        ts timestamptz, f float8, b bytea, i interval, s positive[]);
    CREATE TABLE feel (id int PRIMARY KEY, m mood, ms mood[]);
    CREATE TABLE bulk (id int PRIMARY KEY, v text);
    CREATE TABLE audit (aid int, was bigint, now bigint);
    CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.audit VALUES (NEW.aid, OLD.balance, NEW.balance); RETURN NEW; END $$;
    CREATE TRIGGER audited AFTER UPDATE ON accounts FOR EACH ROW WHEN (NEW.aid % 10 = 0) EXECUTE FUNCTION audited();
    CREATE TABLE ev (id int, day int, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE ev_late PARTITION OF ev FOR VALUES FROM (1000) TO (2000) PARTITION BY HASH (id);
    CREATE TABLE ev_late_0 PARTITION OF ev_late FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE ev_late_1 (v text, gone int, day int NOT NULL, id int NOT NULL); ALTER TABLE ev_late_1 DROP gone;
    ALTER TABLE ev_late ATTACH PARTITION ev_late_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO branches SELECT g, 0, 'b' FROM generate_series(1, 5) g;
    INSERT INTO accounts SELECT g, 1 + g % 5, 100, 'f' FROM generate_series(1, 400) g;
    INSERT INTO sloppy SELECT g, 's' FROM generate_series(1, 50) g;
    INSERT INTO doc SELECT g, 't', repeat(md5(g::text), 120) FROM generate_series(1, 40) g;
    INSERT INTO whole SELECT g % 7, 'f', repeat(md5((g % 7)::text), 120) FROM generate_series(1, 60) g;
    INSERT INTO bykey SELECT g, 'c' || g, 'v' FROM generate_series(1, 100) g;
    INSERT INTO "Num Keys" SELECT g, E'k\t\\' || g, E'v\n' || g FROM generate_series(1, 100) g;
    INSERT INTO longkey SELECT rpad(g::text, 2500, md5(g::text)), g FROM generate_series(1, 30) g;
    INSERT INTO boss SELECT g, 'b' FROM generate_series(1, 20) g;
    INSERT INTO minion (boss) SELECT 1 + g % 20 FROM generate_series(1, 60) g;
    INSERT INTO made (v) SELECT 'm' || g FROM generate_series(1, 40) g;
    INSERT INTO odd SELECT g, g, (g, 'y', g / 3.0)::point3, ARRAY[(g, 'a"b', 1.0)::point3, NULL], int4range(g, g + 3),
        ARRAY['a,b', NULL, '{'], '{"k": [1, null]}', now(), g / 7.0, '\x005c0aff', '1 day 03:04:05.6', ARRAY[g, 1]::positive[]
        FROM generate_series(1, 50) g;
    INSERT INTO feel SELECT g, 'glad', '{sad,mad}' FROM generate_series(1, 50) g;
    INSERT INTO bulk SELECT g, md5(g::text) FROM generate_series(1, 2000) g;"#;
