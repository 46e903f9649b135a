//! As whom PostgreSQL runs when we are root: it refuses to be root.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::child::Identity;
use crate::error::{Code, Error, Result};

const PASSWD: &str = "/etc/passwd";
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// `None`: as we do.
pub(super) fn for_postgres() -> Result<Option<Identity>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(PASSWD).unwrap_or_default();
    match NAMES.iter().find_map(|name| in_passwd(&text, name)) {
        Some(identity) => Ok(Some(identity)),
        None => Err(Error::new(
            Code::RestoreErr,
            "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody` to run it as",
        )
        .hint("run pgstow as an ordinary user, or create the user `postgres`")),
    }
}

fn in_passwd(text: &str, name: &str) -> Option<Identity> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != 0).then_some(Identity { uid, gid })
    })
}

/// The first folder on the way to `path` that this user may not enter.
pub(super) fn closed_to(identity: Identity, path: &Path) -> Option<&Path> {
    path.ancestors().find(|folder| {
        folder.metadata().is_ok_and(|meta| {
            let enter = if meta.uid() == identity.uid {
                0o100
            } else if meta.gid() == identity.gid {
                0o010
            } else {
                0o001
            };
            meta.mode() & enter == 0
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\nnobody2:x:9:9::/:\nnobody:x:65534:65533:nobody:/:/sbin/nologin\nodd\n";
        let nobody = Identity { uid: 65534, gid: 65533 };
        assert_eq!(in_passwd(text, "nobody"), Some(nobody));
        assert_eq!(in_passwd(text, "postgres"), None);
        assert_eq!(in_passwd(text, "root"), None);
    }
}
