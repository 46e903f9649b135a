//! pgstow as a Lambda function, under AWS's own Runtime Interface Emulator.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use super::http::{Answer, post};
use super::program::pgstow;
use super::services::runtime_emulator;

pub struct Function {
    emulator: Child,
    endpoint: String,
    folder: TempDir,
}

impl Function {
    /// Starts the emulator with `configure`'s environment for the function, which itself starts
    /// with the first event. The timeout is Lambda's: the function is killed then.
    pub fn start(timeout: Duration, configure: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // As Lambda finds it: by the name `bootstrap`.
        let bootstrap = folder.path().join("bootstrap");
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let (events, runtime) = (free_address(), free_address());
        let ours = pgstow();
        let mut command = super::program::program(runtime_emulator());
        command.env_clear();
        for (name, value) in ours.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.env("TMPDIR", folder.path().join("tmp"));
        configure(&mut command);
        symlink(ours.get_program(), &bootstrap).unwrap();
        command
            .env("AWS_LAMBDA_FUNCTION_TIMEOUT", timeout.as_secs().to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "pgstow")
            .args([
                "--runtime-interface-emulator-address",
                &events,
                "--runtime-api-address",
                &runtime,
            ])
            .arg(&bootstrap)
            .current_dir(folder.path())
            .stdout(File::create(folder.path().join("log")).unwrap())
            .stderr(File::create(folder.path().join("log.err")).unwrap())
            .stdin(Stdio::null())
            // Its own group, so that the function ends with the emulator.
            .process_group(0);
        let emulator = command.spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&events).is_err() {
            assert!(Instant::now() < end, "the emulator does not listen on {events}");
            sleep(Duration::from_millis(50));
        }
        Self {
            emulator,
            endpoint: format!("http://{events}"),
            folder,
        }
    }

    /// Sends one event and waits for the answer. A function error has `errorType` in the body.
    pub fn invoke(&self, event: &Value) -> Value {
        let body = self.deliver(event);
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in: {body}\n{}", self.log()))
    }

    /// As [`Function::invoke`]; the answer's text, which is the platform's own when it has killed
    /// the function.
    pub fn deliver(&self, event: &Value) -> String {
        let Answer { body, .. } = post(
            &self.endpoint,
            "/2015-03-31/functions/function/invocations",
            &[],
            &event.to_string(),
        );
        body
    }

    /// The lines that the function itself has logged.
    pub fn lines(&self) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The ids that the emulator has given to the invocations.
    pub fn request_ids(&self) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| line.strip_prefix("START RequestId: "));
        lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    /// How often the function was started, be it because it had ended.
    pub fn starts(&self) -> usize {
        self.log().matches("INIT START").count()
    }

    /// Stops the function where it stands, as a machine that hangs does: the platform's timeout
    /// finds it so.
    pub fn freeze(&self) {
        let bootstrap = self.folder.path().join("bootstrap");
        let frozen = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).next() == Some(bootstrap.as_os_str().as_encoded_bytes())
        });
        let pids: Vec<i32> = frozen
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        assert_eq!(pids.len(), 1, "{pids:?}");
        kill_process(Pid::from_raw(pids[0]).unwrap(), Signal::STOP).unwrap();
    }

    /// Processes that the function has started and that still run, by their arguments.
    pub fn children(&self) -> Vec<String> {
        let folder = self.folder.path().to_str().unwrap();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let path = entry.ok()?.path();
            let read = |name| {
                let bytes = fs::read(path.join(name)).ok()?;
                Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
            };
            // The folder with the password's file is theirs to see. An emulator and a function
            // have it in their environment as well, and have `bootstrap` in their arguments.
            Some((read("environ")?, read("cmdline")?))
        });
        processes
            .filter(|(environ, arguments)| environ.contains(folder) && !arguments.contains("bootstrap"))
            .map(|(_, arguments)| arguments)
            .filter(|arguments| !arguments.is_empty())
            .collect()
    }

    /// What lies in the folder for temporary files.
    pub fn temporary_files(&self) -> Vec<String> {
        let files = fs::read_dir(self.folder.path().join("tmp")).unwrap();
        files.map(|file| file.unwrap().path().display().to_string()).collect()
    }

    /// What the function and the emulator have written.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap();
        read("log") + &read("log.err")
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.emulator), Signal::KILL);
        drop(self.emulator.wait());
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}
