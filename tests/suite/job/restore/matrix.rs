//! What each kind of role gets of each kind of restore: all of it, all but what is listed, or a refusal before anything is
//! changed.

use serde_json::Value;

use crate::job::restore::place::{Backed, untouched};
use crate::job::restore::roles::MASTER;
use crate::support::database::{Database, psql, quoted, unique_word};
use crate::support::program::succeed;
use crate::support::server::OwnServer;

/// By whom.
const SUPERUSER: &str = "postgres";
/// Of the database, and of what the backup's application owned.
const OWNER: &str = "app";
const RDS_MASTER: &str = "master";
const READER: &str = "plain";

/// The options of one way to restore, and what the target holds before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    WholeWithoutPublications,
    /// With the extension that it needs.
    Table,
    TableClean,
    Clean,
    DataOnly,
    /// On a server that has none of the backup's roles.
    Globals,
}

use Way::{Clean, DataOnly, Globals, Table, TableClean, Whole, WholeWithoutPublications};

impl Way {
    fn options(self) -> &'static [&'static str] {
        match self {
            Whole => &[],
            WholeWithoutPublications => &["--no-publications"],
            Table => &["--table", "public.t"],
            TableClean => &["--table", "public.t", "--clean"],
            Clean => &["--clean", "--no-publications"],
            DataOnly => &["--table", "public.t", "--data-only", "--clean"],
            Globals => &["--globals", "--no-publications"],
        }
    }

    fn is_into_what_is_there(self) -> bool {
        matches!(self, TableClean | Clean | DataOnly)
    }
}

enum Gets {
    /// All but this.
    All(&'static [&'static str]),
    /// An error of this code, with these words in message or hint, and the target as it was.
    Nothing(&'static str, i32, &'static [&'static str]),
}

use Gets::{All, Nothing};

const PUBLICATION: &str = "PUBLICATION everything";
const EXTENSION: &str = "DROP EXTENSION citext";
const NO_RIGHT: Gets = Nothing(
    "PERMISSION",
    13,
    &[
        "may not create anything in the schema \"public\"",
        "GRANT CREATE ON SCHEMA",
    ],
);
const NO_PUBLICATIONS: Gets = Nothing(
    "PERMISSION",
    13,
    &["may not make publications of all tables", "--no-publications"],
);

#[rustfmt::skip]
const MATRIX: [(Way, &str, Gets); 28] = [
    (Whole, SUPERUSER, All(&[])),
    (Whole, OWNER, NO_PUBLICATIONS),
    (Whole, RDS_MASTER, NO_PUBLICATIONS),
    (Whole, READER, Nothing("PERMISSION", 13, &["may not create anything in", "GRANT CREATE ON DATABASE"])),
    (WholeWithoutPublications, SUPERUSER, All(&[PUBLICATION])),
    (WholeWithoutPublications, OWNER, All(&[PUBLICATION])),
    (WholeWithoutPublications, RDS_MASTER, All(&[PUBLICATION])),
    (WholeWithoutPublications, READER, NO_RIGHT),
    (Table, SUPERUSER, All(&[])),
    (Table, OWNER, All(&[])),
    (Table, RDS_MASTER, Nothing("PERMISSION", 13, &["may not create any in schema \"public\"", "GRANT CREATE ON SCHEMA", "--no-owner"])),
    (Table, READER, NO_RIGHT),
    (TableClean, SUPERUSER, All(&[])),
    (TableClean, OWNER, All(&[])),
    (TableClean, RDS_MASTER, All(&[])),
    (TableClean, READER, NO_RIGHT),
    (Clean, SUPERUSER, All(&[PUBLICATION])),
    (Clean, OWNER, All(&[PUBLICATION, EXTENSION])),
    (Clean, RDS_MASTER, All(&[PUBLICATION, EXTENSION])),
    (Clean, READER, NO_RIGHT),
    (DataOnly, SUPERUSER, All(&[])),
    (DataOnly, OWNER, All(&[])),
    (DataOnly, RDS_MASTER, All(&[])),
    (DataOnly, READER, Nothing("PERMISSION", 13, &["permission denied for table t"])),
    (Globals, SUPERUSER, All(&[PUBLICATION])),
    (Globals, OWNER, Nothing("PERMISSION", 13, &["may not make the roles that the target lacks", "CREATEROLE", "--no-owner"])),
    (Globals, RDS_MASTER, All(&[PUBLICATION])),
    (Globals, READER, NO_RIGHT),
];

fn source(home: &OwnServer, app: &str, viewer: &str) -> Database {
    let source = home.database("source");
    source.sql(&format!(
        "CREATE ROLE {app} LOGIN CREATEDB; CREATE ROLE {viewer};
         CREATE EXTENSION citext; COMMENT ON EXTENSION citext IS 'ours';
         CREATE TABLE t (id int PRIMARY KEY, name citext); INSERT INTO t SELECT n, 'Name ' || n FROM generate_series(1, 100) n;
         ALTER TABLE t OWNER TO {app}; GRANT SELECT ON t TO {viewer}; COMMENT ON TABLE t IS 'ours';
         CREATE POLICY p ON t TO {viewer} USING (true); GRANT CREATE ON SCHEMA public TO {app};
         ALTER DEFAULT PRIVILEGES FOR ROLE {app} GRANT SELECT ON TABLES TO {viewer};
         CREATE PUBLICATION everything FOR ALL TABLES"
    ));
    source
}

fn each_role_gets_what_it_may_and_is_told_the_rest(major: u32) {
    let (app, viewer) = (format!("app_{}", unique_word()), format!("viewer_{}", unique_word()));
    // A server of its own: on a shared one, the roles of other tests come into the backup.
    let home = OwnServer::start(major);
    let backed = Backed::up(source(&home, &app, &viewer), &[]);
    let server = OwnServer::start(major);
    psql(major, &server.url(), MASTER);
    psql(major, &server.url(), "CREATE ROLE app LOGIN PASSWORD 'its secret'");
    let sql = |script: &str| psql(major, &server.url(), script);

    // The roles are there, or they come with the restore.
    let (come, are_there): (Vec<_>, Vec<_>) = MATRIX.iter().partition(|(way, ..)| *way == Globals);
    for (way, role, gets) in come {
        let target = server.database("bare");
        check(&backed, &target, *way, (role, role), gets);
        let made = matches!(gets, All(_));
        let roles = format!("SELECT count(*) FROM pg_roles WHERE rolname IN ('{app}', '{viewer}')");
        assert_eq!(sql(&roles), if made { "2" } else { "0" });
        drop(target);
        if made {
            sql(&format!("DROP ROLE {app}; DROP ROLE {viewer}"));
        }
    }
    sql(&format!(
        "CREATE ROLE {app} LOGIN CREATEDB PASSWORD 'its secret'; CREATE ROLE {viewer}; GRANT {app}, {viewer} TO master"
    ));
    let filled = server.database("filled");
    succeed(&mut backed.restore(&filled.url(), &["--no-publications"]));
    for (way, role, gets) in are_there {
        let target = match way.is_into_what_is_there() {
            true => filled.copy(),
            false => server.database("fresh"),
        };
        if *way == Table {
            target.sql("CREATE EXTENSION citext");
        }
        let login = if *role == OWNER { &app } else { *role };
        check(&backed, &target, *way, (role, login), gets);
        if matches!(gets, All(_)) {
            let about = "SELECT (SELECT count(*) FROM t), pg_get_userbyid(relowner), obj_description(oid) FROM pg_class
                WHERE oid = 't'::regclass";
            assert_eq!(target.sql(about), format!("100|{app}|ours"));
        }
    }
}

/// One line of the matrix; `login` is the role's name on this server.
fn check(backed: &Backed, target: &Database, way: Way, (role, login): (&str, &str), gets: &Gets) {
    let url = match role {
        SUPERUSER => target.url(),
        _ => target.url_as(Some((login, "its secret"))),
    };
    if role != READER && role != SUPERUSER {
        target.sql(&format!("ALTER DATABASE {} OWNER TO {login}", quoted(&target.name)));
    }
    let line = format!("{role} {:?}", way.options());
    match gets {
        All(but) => {
            let report = succeed(&mut backed.restore(&url, way.options())).json();
            assert_eq!(report["status"], "restored", "{line}: {report}");
            let left = report["left_out"].as_array().map_or(&[][..], Vec::as_slice);
            let left = left.iter().filter_map(|one| one["what"].as_str());
            // Other tests' roles are in the backup as well.
            let left: Vec<&str> = left.filter(|what| !what.starts_with("globals.sql: ")).collect();
            assert_eq!(left, *but, "{line}");
            let warned = report["warnings"].as_array().map_or(&[][..], Vec::as_slice);
            let as_superuser = warned
                .iter()
                .filter_map(Value::as_str)
                .any(|text| text.contains("role is a superuser"));
            assert_eq!(as_superuser, role == SUPERUSER, "{line}: {report}");
        }
        Nothing(code, exit, words) => untouched(target, || {
            let refused = backed.refused(&url, way.options(), code, *exit);
            let told = format!("{} {}", refused.message, refused.hint);
            assert!(told.contains("nothing was changed"), "{line}: {told}");
            for word in *words {
                assert!(told.contains(word), "{line}: {word}: {told}");
            }
        }),
    }
}

on_majors! { each_role_gets_what_it_may_and_is_told_the_rest: 15 18 }
