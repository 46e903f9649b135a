use super::*;

#[test]
fn files_are_kept_where_every_change_and_every_signal_is() {
    let landlock = |version, scopes| Some(Landlock { version, scopes });
    let walls = |landlock, namespaces, user| Walls {
        filter: true,
        landlock,
        namespaces,
        mounts: false,
        user,
    };
    for (walls, keep) in [
        (walls(None, Namespaces::None, User::Unused), true),
        (walls(None, Namespaces::OfUser, User::Ours), false),
        // It lets files be cut short.
        (walls(landlock(2, 0), Namespaces::OfUser, User::Ours), false),
        (walls(landlock(3, 0), Namespaces::OfUser, User::Ours), true),
        (walls(landlock(3, 0), Namespaces::None, User::Ours), false),
        // It says that it could, and does not.
        (walls(landlock(6, 0b01), Namespaces::None, User::Ours), false),
        (walls(landlock(6, 0b11), Namespaces::None, User::Ours), true),
    ] {
        assert_eq!(walls.keep_files(), keep, "{walls:?}");
    }
    let open = Walls {
        filter: false,
        ..walls(landlock(6, 0b11), Namespaces::Plain, User::Unused)
    };
    assert!(!open.keep_files());
    // What Landlock lets be cut short, a view of the files keeps; alone it lets them be read.
    for (landlock, namespaces, keep) in [
        (landlock(1, 0), Namespaces::OfUser, true),
        (landlock(1, 0), Namespaces::None, false),
        (None, Namespaces::OfUser, false),
    ] {
        let viewing = Walls {
            mounts: true,
            ..walls(landlock, namespaces, User::Ours)
        };
        assert_eq!(viewing.keep_files(), keep, "{viewing:?}");
    }
}

/// The line that `doctor` prints.
#[test]
fn each_wall_is_named_and_what_follows_from_those_that_are_lacking() {
    let landlock = Some(Landlock {
        version: 6,
        scopes: 0b11,
    });
    let all = Walls {
        filter: true,
        landlock,
        namespaces: Namespaces::Plain,
        mounts: true,
        user: User::Unused,
    };
    assert_eq!(
        all.to_string(),
        "its roles: no superuser; user: one of its own; system call filter: yes; \
         namespaces: processes, network, memory, mounts; files (Landlock): version 6"
    );
    let open = Walls { mounts: false, ..all };
    assert!(
        open.to_string().contains("namespaces: processes, network, memory; "),
        "{open}"
    );
    let none = Walls {
        filter: false,
        landlock: None,
        namespaces: Namespaces::None,
        mounts: false,
        user: User::Ours,
    };
    assert_eq!(
        none.to_string(),
        "its roles: no superuser; user: ours, who is not root; system call filter: no; namespaces: none; \
         files (Landlock): no; functions in C and other untrusted languages are not proved"
    );
    // Without a filter there is no drill unless the settings allow it; the other walls may be missing.
    assert!(none.missing().is_some_and(|missing| missing.contains("seccomp")));
    let filtered = Walls { filter: true, ..none };
    assert_eq!((filtered.missing(), filtered.keep_files()), (None, false));
    let root = Walls {
        user: User::None,
        ..filtered
    };
    assert!(root.to_string().contains("user: none but root; "), "{root}");
    assert!(root.identity().is_err());
}
