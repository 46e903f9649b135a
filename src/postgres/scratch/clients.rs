//! The programs that fill a throwaway server and query it: they read data that others wrote, and need only the
//! server's socket.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::postgres::passfile::Pass;
use crate::postgres::settings;
use crate::run::confinement::{Confinement, Sockets};

/// The walls around such a program, if the settings ask for them. It runs as the same user; it writes nothing, starts
/// nothing, and reads only its own files and these. A script in its place that starts another program gets no walls,
/// because pgstow cannot know what it needs.
pub(in crate::postgres) fn behind_walls<'a>(
    program: &Path,
    pass: &Pass,
    files: impl IntoIterator<Item = &'a Path>,
    settings: &settings::Postgres,
) -> Option<Confinement> {
    let walls = settings.client_walls?;
    if is_script(program) {
        return None;
    }
    let mut readable = installation(program);
    readable.extend(libraries(&settings.child_env));
    readable.extend(pass.path().map(Path::to_owned));
    readable.extend(files.into_iter().map(Path::to_owned));
    Some(Confinement {
        walls,
        identity: None,
        alone: false,
        sockets: Sockets::Calls,
        programs: false,
        writable: Vec::new(),
        readable,
    })
}

fn is_script(program: &Path) -> bool {
    let mut beginning = [0; 2];
    File::open(program).is_ok_and(|mut file| file.read_exact(&mut beginning).is_ok()) && beginning == *b"#!"
}

/// The folders of a program's own files: beside its folder, for the given path and for the real one.
pub(super) fn installation(program: &Path) -> Vec<PathBuf> {
    let real = program.canonicalize();
    let places = [Some(program.to_owned()), real.ok()];
    let folders = places.iter().flatten().filter_map(|program| program.parent());
    folders
        .flat_map(|bin| {
            let root = bin.parent().unwrap_or(bin);
            ["lib", "lib64", "share"]
                .map(|name| root.join(name))
                .into_iter()
                .chain([bin.to_owned()])
        })
        .collect()
}

pub(super) fn libraries(environment: &[(String, String)]) -> Vec<PathBuf> {
    let named = environment.iter().filter(|(name, _)| name == "LD_LIBRARY_PATH");
    named.flat_map(|(_, value)| std::env::split_paths(value)).collect()
}
