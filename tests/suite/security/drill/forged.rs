//! A table of contents that an attacker with write access to the store has changed, every sum with it: the drill's
//! superuser runs nothing of it that pg_dump does not write of such a thing.

use std::fs;

use crate::job::restore::place::Backed;
use crate::security::forging;
use crate::support::database::Database;
use crate::support::program::{pgstow, run};

/// Says as whom it runs.
const TELLS: &str = "DO $$BEGIN RAISE 'super=%',current_setting('is_superuser');END$$;";

/// The table of contents as bytes, changed without a byte more or less.
struct Contents(Vec<u8>);

impl Contents {
    fn replace(&mut self, old: &[u8], new: &[u8]) {
        assert_eq!(old.len(), new.len(), "{}", String::from_utf8_lossy(old));
        let found: Vec<usize> = self
            .0
            .windows(old.len())
            .enumerate()
            .filter(|(_, part)| *part == old)
            .map(|(at, _)| at)
            .collect();
        let [at] = found[..] else {
            panic!("{} is there {} times", String::from_utf8_lossy(old), found.len());
        };
        self.0[at..at + old.len()].copy_from_slice(new);
    }

    /// The whole text that begins like this is another one, filled up with blanks.
    fn define(&mut self, beginning: &str, definition: &str) {
        let at = self
            .0
            .windows(beginning.len())
            .position(|part| part == beginning.as_bytes());
        let at = at.unwrap_or_else(|| panic!("no {beginning}"));
        let length = u32::from_le_bytes(self.0[at - 4..at].try_into().unwrap()) as usize;
        assert!(definition.len() < length, "{length} bytes are too few for {definition}");
        let text = format!("{definition:<width$}\n", width = length - 1);
        self.0[at..at + length].copy_from_slice(text.as_bytes());
    }

    /// The foreign key of this table and name becomes an entry of another kind.
    fn turn(&mut self, table: &str, key: &str, kind: &str, early: bool) {
        let text = |text: &str| {
            [
                &[0][..],
                &u32::try_from(text.len()).unwrap().to_le_bytes(),
                text.as_bytes(),
            ]
            .concat()
        };
        let tag = format!("{table} {key}");
        // After it comes the section.
        let section = |section: u8| [0, section, 0, 0, 0];
        let old = [text(&tag), text("FK CONSTRAINT"), section(4).to_vec()].concat();
        // A shorter kind makes room for a longer tag.
        let room = "FK CONSTRAINT".len() - kind.len();
        let tag = format!("{tag}{}", "z".repeat(room));
        let new = [text(&tag), text(kind), section(if early { 2 } else { 4 }).to_vec()].concat();
        self.replace(&old, &new);
    }
}

fn changed(contents: &[u8], keys: &[String; 6]) -> Vec<u8> {
    let mut contents = Contents(contents.to_vec());
    contents.define(
        "CREATE DATABASE ",
        "UPDATE pg_authid SET rolsuper=true;COMMIT;SELECT 1/0 --DATABASE x",
    );
    let key = |index: usize| format!("ALTER TABLE ONLY public.child\n    ADD CONSTRAINT {}", keys[index]);
    contents.define(
        &key(1),
        &format!("CREATE ACCESS METHOD z TYPE INDEX HANDLER pg_catalog.bthandler;--\r{TELLS}"),
    );
    contents.turn("child", &keys[1], "ACCESS METHOD", false);
    contents.define(&key(2), TELLS);
    contents.define(
        &key(3),
        "CREATE EVENT TRIGGER z ON ddl_command_end EXECUTE FUNCTION public.e();",
    );
    contents.turn("child", &keys[3], "EVENT TRIGGER", true);
    contents.define(&key(4), "GRANT pg_read_server_files TO PUBLIC;");
    contents.turn("child", &keys[4], "DEFAULT ACL", false);
    contents.define(
        &key(5),
        "CREATE TEMP TABLE x(l text);COPY x FROM '/etc/passwd';DO $$BEGIN RAISE 'read %',(SELECT l FROM x LIMIT 1);END$$;",
    );
    contents.0
}

fn a_forged_table_of_contents_gets_no_superuser(major: u32) {
    let database = Database::fresh(major);
    let keys =
        ["database", "method", "told", "event", "grant", "view"].map(|name| format!("{name}_{}", "k".repeat(40)));
    let columns: Vec<String> = keys
        .iter()
        .zip('a'..)
        .map(|(key, column)| {
            format!("{column} int CONSTRAINT {key} REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE")
        })
        .collect();
    database.sql(&format!(
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child ({});
         CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
           IF current_setting('is_superuser') = 'on' THEN RAISE 'super=on'; END IF; END $$",
        columns.join(", ")
    ));
    let backed = Backed::up(database, &[]);
    // The file of its own, and the head of the archive, which knows where the rows lie.
    let toc = forging::content(&backed, "toc");
    let dump = fs::read(backed.file("dump")).unwrap();
    let (head, rows) = dump.split_at(toc.len());
    forging::forge_whole(&backed, "toc", &changed(&toc, &keys));
    forging::forge_whole(&backed, "dump", &[&changed(head, &keys), rows].concat());

    let told = run(&mut backed.site.drill(pgstow()));
    let words = format!("{}{}", told.text(), told.stderr);
    assert!(words.contains("super=off") && !words.contains("super=on"), "{words}");
    assert!(!words.contains("root:"), "{words}");
    assert!(words.contains("the database itself"), "{words}");
    backed.site.assert_nothing_runs();
}

on_majors! { a_forged_table_of_contents_gets_no_superuser: 15 18 }
