//! A database that does its best not to be read rightly, and a plain backup of one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::database::Database;
use crate::support::program::{pgstow, run, succeed};
use crate::support::wreck::{Site, reseal};

/// What looks like COPY, like its end and like pg_dump's headers, wherever text may stand.
pub const HOSTILE: &str = r#"
SET check_function_bodies = off;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE "ro.ot" (m mood, a int) PARTITION BY HASH (m);
CREATE TABLE "leaf
one" PARTITION OF "ro.ot" FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE "leaf; Type: TABLE DATA; Schema: x; Owner: y" PARTITION OF "ro.ot" FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE "leaf, empty" PARTITION OF "ro.ot" FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO "ro.ot" SELECT (enum_range(NULL::mood))[1 + g % 3], g FROM generate_series(1, 500) g;
CREATE TABLE "no columns" ();
INSERT INTO "no columns" DEFAULT VALUES; INSERT INTO "no columns" DEFAULT VALUES;
CREATE TABLE "emp""ty" (a int);
CREATE TABLE tricky (t text);
INSERT INTO tricky VALUES ('\.'), (E'\\.\n\\.\nCOPY public.fake (a) FROM stdin;'), (E'\n'), (''), (NULL), ('\N'),
  (E'--\n-- Data for Name: fake; Type: TABLE DATA; Schema: public; Owner: x\n--\n'), (E'a\\.'), (E'\r\\.\r'), (E'\\'), ('$$''"');
CREATE FUNCTION fake() RETURNS text LANGUAGE plpgsql AS $q$
BEGIN
--
-- Data for Name: fake; Type: TABLE DATA; Schema: public; Owner: x
--

COPY public.fake (a) FROM stdin;
7
\.


END $q$;
CREATE FUNCTION atomic() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT length('
COPY public.fake (a) FROM stdin;
7
\.
'); SELECT 2; END;
COMMENT ON TABLE tricky IS E'it''s\n--\n-- Name: fake; Type: TABLE; Schema: public; Owner: x\n--\n\nCOPY public.fake (a) FROM stdin;\n1\n\\.\n\n\n';
CREATE SCHEMA "s""c.he
ma";
CREATE TABLE "s""c.he
ma"."x
COPY public.fake (a) FROM stdin;
1
\.
" ("c
ol" int, "FROM stdin;" text, made int GENERATED ALWAYS AS ("c
ol" * 2) STORED);
INSERT INTO "s""c.he
ma"."x
COPY public.fake (a) FROM stdin;
1
\.
" VALUES (1, 'a'), (2, NULL);
CREATE TABLE parent (a int); CREATE TABLE child (c text) INHERITS (parent);
ALTER TABLE parent ADD COLUMN b int DEFAULT 4;
INSERT INTO child VALUES (1, 'x', 2), (2, 'y', 3);
CREATE TABLE orders (id int PRIMARY KEY, status varchar(20) CHECK (status IN ('new', 'paid')),
  placed date DEFAULT '2020-01-01', EXCLUDE USING btree (placed WITH =));
CREATE INDEX ON orders (lower(status)) WHERE status IN ('new', 'paid');
CREATE DOMAIN small AS int CHECK (VALUE BETWEEN 1 AND 9);
CREATE VIEW recent AS SELECT * FROM orders WHERE placed BETWEEN '2020-01-01' AND '2021-01-01' AND status IN ('new');
INSERT INTO orders VALUES (1, 'new');
CREATE SEQUENCE counted START 5; SELECT nextval('counted');
SELECT lo_from_bytea(77, '\x00ff5c2e0a'); SELECT lo_create(78); SELECT lo_from_bytea(79, decode(repeat('00ff0a5c', 20000), 'hex'));
"#;

pub fn hostile(major: u32) -> Database {
    let database = Database::named(major, "hostile\"; \\! \n");
    database.sql(HOSTILE);
    database
}

pub struct Kept {
    pub site: Site,
    pub report: Value,
}

impl Kept {
    pub fn of(database: &Database, options: &[&str]) -> Self {
        let site = Site::new();
        let report = succeed(site.backup(&database.url()).args(options)).json();
        Self { site, report }
    }

    pub fn plain(database: &Database, compress: &str) -> Self {
        Self::of(database, &["--format", "plain", "--compress", compress])
    }

    pub fn folder(&self) -> PathBuf {
        self.site.store().join(self.report["id"].as_str().unwrap())
    }

    pub fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder().join("manifest.json")).unwrap()).unwrap()
    }

    /// A forged manifest, with its digest forged too.
    pub fn alter(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest();
        change(&mut manifest);
        fs::write(self.folder().join("manifest.json"), manifest.to_string()).unwrap();
        reseal(&self.folder());
    }

    /// As a version wrote it that did not count plain backups.
    pub fn age(&self) {
        self.alter(|manifest| {
            manifest.as_object_mut().unwrap().remove("script");
            manifest.as_object_mut().unwrap().remove("large_objects");
            manifest["tables"] = Value::Array(Vec::new());
        });
    }

    /// The script, unpacked.
    pub fn script(&self) -> Vec<u8> {
        let path = self
            .folder()
            .join(self.report["files"]["sql"]["name"].as_str().unwrap());
        let tool = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => "zcat",
            Some("zst") => "zstdcat",
            _ => "cat",
        };
        succeed(Command::new(tool).arg(path)).stdout
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = pgstow();
        command
            .args(args)
            .args(["latest", "--json", "--store"])
            .arg(self.site.store())
            .env("TMPDIR", self.site.path().join("tmp"))
            .current_dir(self.site.path());
        command
    }

    /// What `verify` says, and its exit code.
    pub fn verified(&self) -> (Value, i32) {
        let run = run(&mut self.command(&["verify"]));
        (run.json(), run.status.code().unwrap())
    }

    pub fn is_good(&self) -> Value {
        let (report, exit) = self.verified();
        assert_eq!((exit, &report["status"]), (0, &"ok".into()), "{report:#}");
        report
    }

    pub fn drill(&self) -> Command {
        self.command(&["verify", "--drill"])
    }
}

/// Table and what is wrong with it.
pub fn problems(of: &Value) -> Vec<(String, String)> {
    let problems = of["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |problem: &Value, name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    problems
        .iter()
        .map(|problem| (text(problem, "table"), text(problem, "what")))
        .collect()
}

/// What is said of each table's content, and what of the large objects'.
pub fn told(manifest: &Value) -> (Vec<Value>, Vec<Value>) {
    let of = |list: &str, fields: &[&str]| -> Vec<Value> {
        let list = manifest[list].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .map(|one| fields.iter().map(|field| one[*field].clone()).collect())
            .collect()
    };
    (
        of("tables", &["schema", "name", "owner", "rows", "bytes", "sha256"]),
        of("large_objects", &["count", "bytes", "sha256"]),
    )
}
