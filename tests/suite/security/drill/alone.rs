//! Each wall by itself: what stands behind several could be held by one of them, and the others be open.

use pgstow::run::confinement::{Namespaces, User, Walls};

use super::native::can_do;

/// No wall but the user, which PostgreSQL wants.
fn bare() -> Walls {
    Walls {
        filter: false,
        landlock: None,
        namespaces: Namespaces::None,
        mounts: false,
        ..Walls::here()
    }
}

async fn assert_holds(walls: Walls, held: &[&str]) {
    let done = can_do(17, walls).await;
    for one in held {
        assert!(
            !done.iter().any(|done| done == one),
            "{one} of {done:?} behind {walls:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn without_walls_the_same_code_does_what_it_tries() {
    let done = can_do(17, bare()).await;
    for one in [
        "write",
        "read",
        "link",
        "cut",
        "mode",
        "mode of open",
        "mode at",
        "chown",
        "times",
        "network",
        "call",
        "socket",
        "program",
        "everybody",
    ] {
        assert!(done.iter().any(|done| done == one), "{one} is not of {done:?}");
    }
    if bare().user == User::Unused {
        for one in ["environment", "memory", "owner", "trace"] {
            assert!(!done.iter().any(|done| done == one), "{one}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_filter_alone_keeps_programs_network_and_what_files_are() {
    let walls = Walls {
        filter: Walls::here().filter,
        ..bare()
    };
    let held = [
        "program",
        "network",
        "call",
        "socket",
        "trace",
        "namespace",
        "keys",
        "ring",
        "everybody",
        "mode",
        "mode of open",
        "mode at",
        "mode at 2",
        "chown",
        "times",
        "attribute",
    ];
    assert_holds(walls, &held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn landlock_alone_keeps_files() {
    let Some(landlock) = Walls::here().landlock else {
        return;
    };
    let walls = Walls {
        landlock: Some(landlock),
        ..bare()
    };
    assert_holds(walls, &["write", "read", "link", "environment", "memory"]).await;
    if landlock.version >= 3 {
        assert_holds(walls, &["cut"]).await;
    }
    if landlock.scopes & 0b10 != 0 {
        assert_holds(walls, &["owner", "keeper"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn namespaces_alone_keep_processes_and_the_network() {
    let namespaces = Walls::here().namespaces;
    if namespaces == Namespaces::None {
        return;
    }
    let walls = Walls { namespaces, ..bare() };
    assert_holds(walls, &["owner", "keeper", "environment", "memory", "trace", "call"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_view_of_the_files_alone_keeps_them_as_they_are() {
    let here = Walls::here();
    if !here.mounts {
        return;
    }
    let walls = Walls {
        namespaces: here.namespaces,
        mounts: true,
        ..bare()
    };
    assert_holds(walls, &["write", "link", "cut", "owner", "environment", "memory"]).await;
}

/// As in most containers.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn without_namespaces_the_others_hold_all_of_it() {
    let walls = Walls {
        namespaces: Namespaces::None,
        ..Walls::here()
    };
    if walls.keep_files() {
        assert_eq!(can_do(17, walls).await, Vec::<String>::new());
    }
}
