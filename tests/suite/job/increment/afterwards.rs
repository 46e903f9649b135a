//! After the source is gone: what a store of increments is worth without its server, and without the right to write.

use super::scene::Scene;
use crate::support::disk::Disk;
use crate::support::program::{Run, program, run, succeed};
use crate::support::server::OwnServer;

#[test]
fn everything_that_reads_increments_needs_neither_the_source_nor_a_right_to_write() {
    let mut scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (0, 'before')");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1, 'one')");
    scene.increment();
    scene.backup(&[]);
    scene.sql("DELETE FROM orders");
    let last = scene.increment();
    let disk = Disk::mount("size=64m");
    succeed(
        program("cp")
            .arg("-a")
            .arg(scene.folder.path().join("."))
            .arg(disk.path()),
    );
    disk.remount("ro");
    scene.server.stop();

    let command = |arguments: &[&str]| {
        let mut command = scene.pgstow(arguments);
        command.env("BACKUP_STORE", disk.path()).arg("--json");
        command
    };
    let fine = |arguments: &[&str]| -> Run { succeed(&mut command(arguments)) };
    let listed = fine(&["list"]).json();
    assert_eq!(listed["chains"][0]["increments"], 2, "{listed}");
    let changes = fine(&["changes", "--table", "public.orders"]).json();
    assert_eq!(changes["transactions"].as_array().unwrap().len(), 2, "{changes}");
    let verified = run(&mut command(&["verify", "latest", "--chain"]));
    let document = verified.json();
    assert_eq!(document["chain"]["equal"], 1, "{document}");
    assert_eq!(verified.status.code(), Some(0), "{document}");
    assert!(
        document["warnings"].to_string().contains("could not be written"),
        "{document}"
    );
    // `status` tells whether a person has to act; it has nothing to ask of the source.
    run(&mut command(&["status"])).json();

    let other = OwnServer::start(18);
    let target = other.database("target");
    let mut restore = command(&[
        "restore",
        "latest",
        "--to-lsn",
        last["increment"]["from"].as_str().unwrap(),
    ]);
    succeed(restore.env("BACKUP_TARGET_URL", target.url()));
    assert_eq!(
        target.sql("SELECT string_agg(item, ',' ORDER BY id) FROM orders"),
        "before,one"
    );
}
