//! The folders of a throwaway server's data and its socket.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{PORT, failed};
use crate::error::Result;
use crate::run::confinement::{Identity, closed_to};
use crate::run::private_folder::{self, PrivateFolder};

/// The longest path of a socket that the kernel accepts.
const SOCKET_BYTES: usize = 107;
const SHORT: &str = "/tmp";
const DATA: &str = "data";
const SOCKET: &str = "s";

/// Its folders, removed on drop.
#[derive(Debug)]
pub(super) struct ScratchFolders {
    folder: PrivateFolder,
    /// A separate folder for the socket, if the path in the first one is too long.
    short: Option<PrivateFolder>,
}

impl ScratchFolders {
    /// Empty folders for a server that runs as `identity`.
    pub fn prepare(temp: &Path, identity: Option<Identity>) -> Result<ScratchFolders> {
        let temp = temp.canonicalize().unwrap_or_else(|_| temp.to_owned());
        let folder = open(&temp, identity)?;
        make(&folder.path().join(DATA), identity)?;
        let mut place = ScratchFolders { folder, short: None };
        if too_long(&place.socket()) {
            let short = Path::new(SHORT);
            // A previous run with another TMPDIR may have left a folder here, and its own clean-up does not come
            // here.
            let _ = private_folder::sweep_stale(short);
            place.short = Some(open(short, identity)?);
        }
        make(&place.socket(), identity)?;
        Ok(place)
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join(DATA)
    }

    pub fn socket(&self) -> PathBuf {
        self.short.as_ref().unwrap_or(&self.folder).path().join(SOCKET)
    }

    /// A file for initdb alone, with the superuser's password.
    pub fn password(&self, password: &SecretString, reader: Option<Identity>) -> Result<PathBuf> {
        let path = self.folder.write("password", password.expose_secret().as_bytes())?;
        if let Some(reader) = reader {
            chown(&path, Some(reader.uid), Some(reader.gid)).map_err(|error| unopened(&path).source(error))?;
        }
        Ok(path)
    }

    /// A small file beside the data that only pgstow's user can read.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        self.folder.write(name, text.as_bytes())
    }

    /// Makes this user the owner of the data folder and everything in it. Only before the server runs, because the
    /// server may make links.
    pub fn give_data(&self, identity: Option<Identity>) -> Result<()> {
        let Some(identity) = identity else {
            return Ok(());
        };
        let mut open = vec![self.data()];
        while let Some(path) = open.pop() {
            let given = lchown(&path, Some(identity.uid), Some(identity.gid)).and_then(|()| {
                if path.symlink_metadata()?.is_dir() {
                    for entry in std::fs::read_dir(&path)? {
                        open.push(entry?.path());
                    }
                }
                Ok(())
            });
            given.map_err(|error| unopened(&path).source(error))?;
        }
        Ok(())
    }

    pub fn folders(&self) -> Vec<&Path> {
        std::iter::once(&self.folder)
            .chain(&self.short)
            .map(PrivateFolder::path)
            .collect()
    }
}

fn too_long(socket: &Path) -> bool {
    socket.join(format!(".s.PGSQL.{PORT}")).as_os_str().len() > SOCKET_BYTES
}

/// A private folder; the server's user may enter the folder in it, but not list or change it.
fn open(temp: &Path, identity: Option<Identity>) -> Result<PrivateFolder> {
    let folder = PrivateFolder::create(temp)?;
    if let Some(identity) = identity {
        if let Some(closed) = closed_to(identity, temp) {
            return Err(failed(format!(
                "pgstow runs as root and the server as user {}, and that user may not enter {}",
                identity.uid,
                closed.display()
            ))
            .hint("point TMPDIR at a folder that every user may enter"));
        }
        let path = folder.path();
        chown(path, None, Some(identity.gid))
            .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o710)))
            .map_err(|error| unopened(path).source(error))?;
    }
    Ok(folder)
}

fn unopened(path: &Path) -> crate::error::Error {
    failed(format!(
        "the server's user cannot be given access to {}",
        path.display()
    ))
}

fn make(path: &Path, identity: Option<Identity>) -> Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .and_then(|()| match identity {
            Some(identity) => chown(path, Some(identity.uid), Some(identity.gid)),
            None => Ok(()),
        })
        .map_err(|error| failed(format!("{} cannot be made", path.display())).source(error))
}
