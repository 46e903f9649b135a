//! A system that lets no filter be set: no drill, unless a person says that it may be.

// A filter that refuses filters is set between fork and exec.
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog};

use super::assert_proved;
use crate::support::database::Database;
use crate::support::program::{pgstow, run, succeed};
use crate::support::wreck::{Site, tree};

const fn step(code: u32, k: u32, (jt, jf): (u8, u8)) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// As a system that has no filters: neither of the two calls that set one is known.
fn without_filters(command: &mut Command) -> &mut Command {
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;
    const NEXT: (u8, u8) = (0, 0);
    let equal = BPF_JMP | BPF_JEQ | BPF_K;
    let load = BPF_LD | BPF_W | BPF_ABS;
    let steps = [
        step(load, NUMBER, NEXT),
        step(equal, libc::SYS_seccomp as u32, (4, 0)),
        step(equal, libc::SYS_prctl as u32, (0, 2)),
        step(load, FIRST_ARGUMENT, NEXT),
        step(equal, libc::PR_SET_SECCOMP as u32, (1, 0)),
        step(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW, NEXT),
        step(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32, NEXT),
    ];
    let refuse = move || -> Result<()> {
        let filter = sock_fprog {
            len: steps.len() as u16,
            filter: steps.as_ptr().cast_mut(),
        };
        // SAFETY: both take numbers and a filter that outlives the calls; the kernel only reads it.
        let set = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) == 0
        };
        if set { Ok(()) } else { Err(Error::last_os_error()) }
    };
    // SAFETY: the closure makes two system calls, and allocates nothing unless they fail.
    unsafe { command.pre_exec(refuse) }
}

#[test]
fn without_a_filter_a_drill_is_refused_and_doctor_says_what_stands() {
    let (site, source) = (Site::new(), Database::fresh(17));
    source.sql("CREATE TABLE t AS SELECT 1 AS n");
    succeed(&mut site.backup(&source.url()));
    let refused = run(without_filters(&mut site.drill(pgstow())));
    let said = refused.json();
    assert!(!refused.status.success(), "{said:#}");
    let said = said.to_string();
    assert!(said.contains("cannot confine it") && said.contains("seccomp"), "{said}");
    assert!(said.contains("--unconfined"), "{said}");
    // Its bytes were verified before that.
    let kept = tree(&site.store());
    let kept = kept.iter().find(|name| name.ends_with("/verification.json")).unwrap();
    let kept = std::fs::read_to_string(site.store().join(kept)).unwrap();
    assert!(kept.contains("\"verify\"") && !kept.contains("\"drill\""), "{kept}");
    // A person's word, by flag or variable.
    let mut command = site.drill(pgstow());
    assert_proved(&succeed(without_filters(command.arg("--unconfined"))).json());
    let doctor = || {
        let mut command = pgstow();
        command.args(["doctor", "--json", "--store"]).arg(site.store());
        command.env("TMPDIR", site.path().join("tmp")).current_dir(site.path());
        command.env("DATABASE_URL", source.url());
        command
    };
    let check = |command: &mut Command| {
        let report = run(command).json();
        let checks = report["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == "drill").unwrap()
    };
    let lacking = check(without_filters(&mut doctor()));
    assert_eq!(lacking["state"], "skipped", "{lacking}");
    let detail = lacking["detail"].as_str().unwrap();
    assert!(
        detail.contains("refused here") && detail.contains("system call filter: no"),
        "{detail}"
    );
    // By the variable, as the units and the functions say it.
    let tolerated = check(without_filters(doctor().env("BACKUP_DRILL_UNCONFINED", "true")));
    assert_eq!(tolerated["state"], "warning", "{tolerated}");
    let detail = tolerated["detail"].as_str().unwrap();
    assert!(
        detail.contains("the settings allow drills nevertheless") && detail.contains("system call filter: no"),
        "{detail}"
    );
    let whole = check(&mut doctor());
    let detail = whole["detail"].as_str().unwrap();
    for wall in [
        "its roles: no superuser",
        "user: ",
        "system call filter: yes",
        "namespaces: ",
        "files (Landlock): ",
    ] {
        assert!(detail.contains(wall), "{wall}: {detail}");
    }
}
