//! A pg_dump that is not what it should be: a script in a folder for `BACKUP_PG_BIN`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::database::Database;
use super::program::{stock, succeed};
use super::services::postgres_bin;

/// A folder below `place` with a `pg_dump` of ours beside the real other programs. `script` is for
/// bash: `$REAL` is the real pg_dump, `$SITE` is `place`; it is not asked for its version.
pub fn impostor(place: &Path, major: u32, script: &str) -> PathBuf {
    let folder = bin_with(place, "impostor", major, &["pg_dumpall"]);
    write_script(
        &folder.join("pg_dump"),
        &postgres_bin(major).join("pg_dump"),
        place,
        script,
    );
    folder
}

/// A folder below `place` with programs that give what the real ones give for `database` now, without
/// asking it again: for tests that make many backups and look at what becomes of them in a store.
pub fn recorded(place: &Path, database: &Database) -> PathBuf {
    let folder = place.join("recorded");
    fs::create_dir(&folder).unwrap();
    let url = database.url();
    for (name, arguments) in [
        ("pg_dump", ["-Fc", "-Z0"].as_slice()),
        ("pg_dumpall", &["--globals-only", "--no-role-passwords"]),
    ] {
        let version = succeed(stock(database.major, name).arg("--version")).text();
        let output = succeed(stock(database.major, name).args(arguments).args(["--dbname", &url])).stdout;
        let (said, given) = (
            folder.join(format!("{name}.version")),
            folder.join(format!("{name}.output")),
        );
        fs::write(&said, version).unwrap();
        fs::write(&given, output).unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" != --version ] || exec cat {}\nexec cat {}\n",
            said.display(),
            given.display()
        );
        executable(&folder.join(name), &script);
    }
    folder
}

/// A folder below `place` with some of a major's real programs.
pub fn bin_with(place: &Path, name: &str, major: u32, programs: &[&str]) -> PathBuf {
    let folder = place.join(name);
    fs::create_dir(&folder).unwrap();
    for program in programs {
        symlink(postgres_bin(major).join(program), folder.join(program)).unwrap();
    }
    folder
}

/// A script that says the real program's version, and for the rest does as it is told.
pub fn write_script(path: &Path, real: &Path, place: &Path, script: &str) {
    let (real, place) = (real.display(), place.display());
    let text = format!(
        "#!/bin/bash\nset -o pipefail\nREAL={real} SITE={place}\n\
         [ \"$1\" != --version ] || exec $REAL --version\n{script}\n"
    );
    executable(path, &text);
}

fn executable(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A script for a pg_dump that is real, but gives its stream in pieces of `bytes` with a pause of
/// `seconds` after each, and makes the file `started` when the first is out. It fails when the
/// real one does.
pub fn trickle(bytes: u32, seconds: f32) -> String {
    format!(
        r#"$REAL "$@" | perl -e '$| = 1; while (read(STDIN, $piece, {bytes})) {{
            print $piece or exit 1; open(STARTED, ">", "$ARGV[0]/started"); select(undef, undef, undef, {seconds}) }}' $SITE"#
    )
}
