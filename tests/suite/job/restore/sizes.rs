//! A great deal of data in little memory.

use crate::job::restore::place::Backed;
use crate::support::database::Database;
use crate::support::memory::bounded;

#[tokio::test]
async fn large_tables_and_a_huge_value_come_back_from_s3_bounded() {
    let source = Database::fresh(17);
    source.sql(
        "CREATE TABLE one AS SELECT n, repeat(md5(n::text), 30) AS text FROM generate_series(1, 100000) n;
         CREATE TABLE huge (id integer, value text);
         ALTER TABLE huge ALTER COLUMN value SET STORAGE EXTERNAL;
         INSERT INTO huge SELECT 1, repeat(string_agg(md5(n::text), ''), 100) FROM generate_series(1, 31250) n;",
    );
    for compress in ["none", "zstd"] {
        let backed = Backed::in_s3(crate::job::restore::place::copy(&source), &["--compress", compress]).await;
        let mut verify = crate::support::program::pgstow();
        verify
            .args(["verify", backed.id(), "--store", &backed.store])
            .current_dir(backed.site.path());
        bounded(crate::support::services::cloud(&mut verify));
        let target = Database::fresh(17);
        bounded(&mut backed.restore(&target.url(), &["--jobs", "2"]));
        let digest = "SELECT (SELECT count(*) FROM one), (SELECT md5(string_agg(text, '' ORDER BY n)) FROM one), (SELECT md5(value) FROM huge)";
        assert_eq!(target.sql(digest), source.sql(digest));
    }
}
