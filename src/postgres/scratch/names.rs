//! Gives a name to a user that has none. initdb requires one, and a container may run as a user id that is in no file
//! (OpenShift gives each namespace its own). If a user namespace is available, pgstow runs initdb there as a user
//! with a name. Otherwise it uses nss_wrapper, a small library that images for such platforms contain.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::folders::ScratchFolders;
use crate::error::Result;
use crate::run::confinement::{Namespaces, User, Walls, is_nameless};

pub(super) const HINT: &str = "this user has no name in /etc/passwd: give it one there, install the library nss_wrapper, \
                               or allow user namespaces";

const LIBRARY: &str = "libnss_wrapper.so";
/// Where distributions put libraries.
const FOLDERS: [&str; 5] = [
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib",
    "/usr/local/lib",
];

pub(super) struct Named {
    library: PathBuf,
    users: PathBuf,
    groups: PathBuf,
}

impl Named {
    /// The files that name this user, and the library that reads them; `None` if they are not needed or there is no
    /// library.
    pub fn where_needed(walls: Walls, place: &ScratchFolders) -> Result<Option<Named>> {
        if walls.user != User::Ours || walls.namespaces == Namespaces::OfUser || !is_nameless() {
            return Ok(None);
        }
        let found = FOLDERS.iter().map(|folder| Path::new(folder).join(LIBRARY));
        let Some(library) = found.into_iter().find(|library| library.exists()) else {
            return Ok(None);
        };
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Some(Named {
            library,
            users: place.write("passwd", &format!("pgstow:x:{uid}:{gid}::/:/sbin/nologin\n"))?,
            groups: place.write("group", &format!("pgstow:x:{gid}:\n"))?,
        }))
    }

    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let pairs = [
            ("LD_PRELOAD", &self.library),
            ("NSS_WRAPPER_PASSWD", &self.users),
            ("NSS_WRAPPER_GROUP", &self.groups),
        ];
        pairs.map(|(name, path)| (name.into(), path.into())).into()
    }

    pub fn files(&self) -> Vec<PathBuf> {
        vec![self.users.clone(), self.groups.clone()]
    }
}
