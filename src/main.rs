use std::io::IsTerminal;
use std::process::ExitCode;
use std::{collections::BTreeMap, io};

use pgstow::dataflow::budget;
use pgstow::error::{Error, Result};
use pgstow::face::{cli, lambda};
use pgstow::run::{confinement, threads};
use pgstow::settings;

/// The only function that reads the process's arguments, environment and folder.
fn main() -> ExitCode {
    confinement::keep_to_ourselves();
    give_large_buffers_back();
    take_little_address_space();
    let_writes_fail();
    // Bytes that are not UTF-8 become U+FFFD, so that pgstow refuses the setting instead of not seeing it.
    let env: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()))
        .collect();
    // The SDK reads its own variables from the environment.
    confinement::forget_variables(|name| settings::is_secret(name) && !name.starts_with("AWS_"));
    match start(env) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cli::tell(&error, false);
            ExitCode::from(error.code().exit_code())
        }
    }
}

/// After the first large buffer is freed, the C library's allocator raises its threshold, and keeps such buffers in a
/// heap for each thread. pgstow passes buffers of megabytes between threads, so this would take half as much memory
/// again as is in use. The allocator does not change a threshold that a program has set.
#[cfg(target_env = "gnu")]
fn give_large_buffers_back() {
    const THRESHOLD: libc::c_int = 1 << 20;
    // SAFETY: it sets a number, and no other thread is there yet.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
    }
}

#[cfg(not(target_env = "gnu"))]
fn give_large_buffers_back() {}

/// Otherwise each thread reserves 64 MiB or more for a heap of its own, which counts if addresses are limited
/// (ulimit -v).
#[cfg(target_env = "gnu")]
fn take_little_address_space() {
    if budget::has_limited_addresses() {
        // SAFETY: it sets a number, and no other thread is there yet.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}

#[cfg(not(target_env = "gnu"))]
fn take_little_address_space() {}

/// At the limit of a file's length (ulimit -f), a write must fail as on a full disk, and not end the process. Child
/// processes inherit this.
fn let_writes_fail() {
    // SAFETY: it sets the action for a signal, and there is no other thread yet.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// A debug build's frames take most of the usual 2 MiB. Unused stack takes no memory.
const STACK: usize = 4 << 20;

/// How long a thread may take to start.
const BEGINNING: std::time::Duration = std::time::Duration::from_secs(10);

/// With a thread for blocking work: if the system gives no other thread, blocking work waits for this one.
fn runtime() -> Result<tokio::runtime::Runtime> {
    // Tokio panics if the system gives it no thread.
    let built = std::panic::catch_unwind(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_stack_size(STACK)
            .build()?;
        // Tokio waits silently if the workers took the last threads.
        let begun = runtime.spawn_blocking(|| ());
        let begun = runtime.block_on(async { tokio::time::timeout(BEGINNING, begun).await });
        if begun.is_err() {
            runtime.shutdown_background();
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(runtime)
    });
    let refused = || threads::refused(io::Error::from(io::ErrorKind::WouldBlock));
    let built = built.map_err(|_| refused())?;
    built.map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => refused(),
        _ => Error::internal("the runtime does not start").source(error),
    })
}

fn start(env: BTreeMap<String, String>) -> Result<u8> {
    let working_dir = std::env::current_dir().map_err(|error| {
        Error::config("the working directory does not exist any more, or pgstow may not read it").source(error)
    })?;
    budget::check_addresses()?;
    let memory = budget::of_this_task(&env);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = runtime()?;
    let result = if env.contains_key("AWS_LAMBDA_RUNTIME_API") {
        let process = lambda::Process {
            env,
            working_dir,
            cpus,
            memory,
        };
        runtime.block_on(lambda::run(process)).map(|()| 0)
    } else {
        let process = cli::Process {
            args: std::env::args_os().collect(),
            env,
            working_dir,
            cpus,
            memory,
            stderr_is_terminal: io::stderr().is_terminal(),
        };
        Ok(runtime.block_on(cli::run(process)))
    };
    // A blocking call that hangs (a dead NFS folder) must not keep the process alive.
    runtime.shutdown_background();
    result
}
