//! Columns that a dump gives back in another order.

use super::{assert_proved, drill, drill_with_injuries, problems, results};
use crate::support::database::Database;
use crate::support::program::succeed;
use crate::support::wreck::Site;

/// Every way that was found to get there, with names that are hard to read.
const MOVED: &str = "
    CREATE TABLE parent (id int, \"a, b\" text);
    CREATE TABLE late (\"own (x)\" text, filler text) INHERITS (parent);
    ALTER TABLE parent ADD COLUMN \"say \"\"hi\"\",\" text;
    CREATE TABLE adopted (\"say \"\"hi\"\",\" text, more int, \"a, b\" text, id int);
    ALTER TABLE adopted INHERIT parent;
    CREATE TABLE other (z int, id int);
    CREATE TABLE two (own int) INHERITS (other, parent);
    ALTER TABLE other ADD COLUMN y int;
    CREATE TABLE let_go (id int, own int) INHERITS (other);
    ALTER TABLE other ADD COLUMN x int; ALTER TABLE let_go NO INHERIT other;
    CREATE TYPE row_type AS (a int, b text);
    CREATE TABLE typed OF row_type;
    ALTER TYPE row_type ADD ATTRIBUTE c text CASCADE;
    CREATE TABLE grown (a int, b text, c int GENERATED ALWAYS AS (1) STORED, d text);
    ALTER TABLE grown DROP b; ALTER TABLE grown ADD b text;
    INSERT INTO late SELECT g, E'a\\tb\\\\' || g, 'own', repeat('f', g % 400), E'hi\\nyou' FROM generate_series(1, 5000) g;
    DELETE FROM late WHERE id % 3 = 0; VACUUM late;
    INSERT INTO late SELECT -g, NULL, '', repeat('f', g % 900), '\\N' FROM generate_series(1, 3000) g;
    INSERT INTO adopted VALUES ('x', 1, NULL, 2), (NULL, 3, '\\.', 4);
    INSERT INTO two (z, id, \"a, b\", own, y) VALUES (1, 2, 'b', 3, 4);
    INSERT INTO let_go (z, id, own) VALUES (1, 2, 3);
    INSERT INTO typed VALUES (1, 'b', 'c');
    INSERT INTO grown (a, d, b) VALUES (1, 'd', 'b');
    GRANT SELECT ON parent TO pg_monitor";

fn columns_that_come_back_in_another_order_hold_the_same(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    database.sql(MOVED);
    succeed(&mut site.backup(&database.url()));
    let report = succeed(&mut drill(&site)).json();
    assert_proved(&report);
    assert_eq!(results(&report).len(), 8, "{report:#}");
}

on_majors! { columns_that_come_back_in_another_order_hold_the_same: 15 16 17 18 }

#[test]
fn values_that_changed_places_and_columns_that_are_others_are_found() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql(MOVED);
    succeed(&mut site.backup(&database.url()));
    let injuries = "UPDATE public.late SET \"own (x)\" = filler, filler = \"own (x)\" WHERE id = 1;
        DELETE FROM public.adopted WHERE more = 1;
        ALTER TABLE public.two RENAME own TO \"own, too\"; ALTER TABLE public.grown DROP d;";
    let run = drill_with_injuries(&site, 17, injuries);
    assert_eq!(run.status.code(), Some(40), "{}", run.stderr);
    let named = problems(&run.json());
    for (table, what) in [
        ("public.late", "has as many rows as the backup, and other ones"),
        ("public.adopted", "has 1 row, the backup 2"),
        ("public.two", "lacks the columns \"own\", and has others: \"own, too\""),
        ("public.grown", "lacks the columns \"d\""),
        ("TABLE public.two", "is defined otherwise"),
        ("TABLE public.grown", "is defined otherwise"),
    ] {
        assert!(
            named.contains(&(table.into(), what.into())),
            "{table} {what}: {named:#?}"
        );
    }
    assert_eq!(named.len(), 6, "{named:#?}");
}
