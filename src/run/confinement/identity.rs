//! The user of a confined program. As root, pgstow takes a user that nothing else uses: a program that breaks out
//! then owns nothing on this machine.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
}

/// Numbers that neither systemd, nor distributions, nor containers' ranges use.
const UNUSED: std::ops::Range<u32> = 1_879_048_192..2_147_352_576;
/// Lower numbers belong to the system's own users.
const ORDINARY: u32 = 1000;
const TRIES: usize = 200;

/// The user for no particular purpose; it owns no files.
const NOBODY: &str = "nobody";
/// The owner of this machine's own clusters: no code of a backup runs as this user.
const NEVER: &str = "postgres";

/// A user and a group with the same number, which is not in `/etc/passwd` or `/etc/group`, and which no process has.
/// `None` if we may not become one.
pub(super) fn unused() -> Option<Identity> {
    let uids = mapped("/proc/self/uid_map")?;
    let gids = mapped("/proc/self/gid_map")?;
    let range = [UNUSED, ordinary(&uids)?].into_iter().find(|range| {
        [&uids, &gids].into_iter().all(|mapped| {
            let within = |one: &std::ops::Range<u32>| one.start <= range.start && range.end <= one.end;
            mapped.iter().any(within)
        })
    })?;
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (users, groups) = (read(PASSWD), read(GROUP));
    (0..TRIES).find_map(|_| {
        let number = range.start + random()? % (range.end - range.start);
        let taken = names(&users, 2, number) || names(&users, 3, number) || names(&groups, 2, number);
        (!taken && !runs(number)).then_some(Identity {
            uid: number,
            gid: number,
        })
    })
}

/// The numbers that this user namespace maps.
fn mapped(path: &str) -> Option<Vec<std::ops::Range<u32>>> {
    let text = std::fs::read_to_string(path).ok()?;
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        let start = fields.next()?.ok()?;
        let count = fields.nth(1)?.ok()?;
        Some(start..start.saturating_add(count))
    });
    Some(ranges.collect())
}

/// The upper half of the largest range, for a container that maps no others.
fn ordinary(mapped: &[std::ops::Range<u32>]) -> Option<std::ops::Range<u32>> {
    let largest = mapped.iter().max_by_key(|range| range.end - range.start)?;
    let start = (largest.start + (largest.end - largest.start) / 2).max(ORDINARY);
    // To the kernel, the last number means "none".
    let end = largest.end.min(u32::MAX - 1);
    (start < end).then_some(start..end)
}

fn random() -> Option<u32> {
    use std::io::Read;
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom").ok()?.read_exact(&mut bytes).ok()?;
    Some(u32::from_ne_bytes(bytes))
}

/// Whether a line of `/etc/passwd` or `/etc/group` has this number in this field.
fn names(text: &str, field: usize, number: u32) -> bool {
    let number = number.to_string();
    text.lines()
        .any(|line| line.split(':').nth(field) == Some(number.as_str()))
}

fn runs(uid: u32) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return false;
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .any(|entry| entry.metadata().is_ok_and(|process| process.uid() == uid))
}

/// Whether `/etc/passwd` has the number. (A directory service may have it all the same.)
pub(super) fn is_known(uid: u32) -> bool {
    names(&std::fs::read_to_string(PASSWD).unwrap_or_default(), 2, uid)
}

/// Any user in `/etc/passwd` except root and `postgres`.
pub(super) fn known() -> Option<u32> {
    known_in(&std::fs::read_to_string(PASSWD).unwrap_or_default())
}

fn known_in(text: &str) -> Option<u32> {
    let never = in_passwd(text, NEVER);
    let others = || {
        text.lines()
            .filter_map(uid_of)
            .find(|uid| *uid != 0 && Some(*uid) != never)
    };
    in_passwd(text, NOBODY)
        .filter(|uid| Some(*uid) != never)
        .or_else(others)
}

fn in_passwd(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    uid_of(line).filter(|uid| *uid != 0)
}

fn uid_of(line: &str) -> Option<u32> {
    line.split(':').nth(2)?.parse().ok()
}

/// The first folder on the way to `path` that this user may not enter.
pub(crate) fn closed_to(identity: Identity, path: &Path) -> Option<&Path> {
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
        assert_eq!(in_passwd(text, "nobody"), Some(65534));
        assert_eq!(in_passwd(text, "postgres"), None);
        assert_eq!(in_passwd(text, "root"), None);
        assert!(names(text, 2, 65534) && names(text, 3, 65533) && !names(text, 2, 6553));
    }

    #[test]
    fn the_machines_postgres_is_never_the_one() {
        let text = "root:x:0:0::/:\npostgres:x:70:70::/:\n";
        assert_eq!(known_in(text), None);
        assert_eq!(
            known_in(&format!("{text}also:x:70:70::/:\ndaemon:x:2:2::/:\n")),
            Some(2)
        );
        assert_eq!(known_in(&format!("{text}nobody:x:65534:65534::/:\n")), Some(65534));
    }

    #[test]
    fn a_container_with_few_users_gives_one_of_its_own() {
        assert_eq!(ordinary(&[0..1, 1..65537]), Some(32769..65537));
        assert_eq!(
            ordinary(std::slice::from_ref(&(0..u32::MAX))),
            Some(2_147_483_647..u32::MAX - 1)
        );
        assert_eq!(ordinary(std::slice::from_ref(&(0..1))), None);
        assert_eq!(ordinary(&[]), None);
    }

    #[test]
    fn nobody_else_is_the_one_that_is_taken() {
        let Some(found) = unused() else {
            return;
        };
        assert!(found.uid >= ORDINARY && !is_known(found.uid) && !runs(found.uid));
    }
}
