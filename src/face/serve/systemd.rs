//! systemd: the socket that it may hand over, and what it is told: that pgstow is ready, that it lives, that it ends.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::FromRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};

use crate::error::{Error, Result};

/// Where systemd puts the first socket that it hands over.
const FIRST: i32 = 3;

/// What the environment of this process says about it. Without systemd that is nothing.
#[derive(Debug, Default)]
pub struct Systemd {
    /// Where it listens: a path, or `@` and an abstract name.
    notify: Option<String>,
    /// It takes the process for dead if it hears nothing for so long.
    watchdog: Option<Duration>,
    /// How many sockets it hands over.
    sockets: u32,
}

impl Systemd {
    pub fn of(env: &BTreeMap<String, String>) -> Self {
        let pid = std::process::id().to_string();
        let number = |name: &str| env.get(name).and_then(|text| text.parse::<u64>().ok());
        let is_watched = env.get("WATCHDOG_PID").is_none_or(|watched| *watched == pid);
        let watchdog = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_watched);
        let sockets = number("LISTEN_FDS").filter(|_| env.get("LISTEN_PID") == Some(&pid));
        Self {
            notify: env.get("NOTIFY_SOCKET").cloned(),
            watchdog: watchdog.map(Duration::from_micros),
            sockets: sockets.and_then(|count| count.try_into().ok()).unwrap_or_default(),
        }
    }

    /// The socket that it hands over, if it does. It can be taken once.
    ///
    /// # Errors
    /// `CONFIG` for several of them, or one that is not of TCP.
    pub fn listener(&mut self) -> Result<Option<TcpListener>> {
        match std::mem::take(&mut self.sockets) {
            0 => return Ok(None),
            1 => {}
            several => {
                return Err(Error::config(format!("systemd hands over {several} sockets"))
                    .hint("give the .socket unit one ListenStream=, such as 127.0.0.1:8080"));
            }
        }
        // SAFETY: systemd says in LISTEN_PID and LISTEN_FDS that this descriptor is open, and this process's own; nothing
        // else in it uses the descriptor, and it is taken once.
        #[allow(unsafe_code)]
        let listener = unsafe { TcpListener::from_raw_fd(FIRST) };
        let usable = listener
            .local_addr()
            .and_then(|_| listener.set_nonblocking(true))
            .and_then(|()| Ok(fcntl_setfd(&listener, FdFlags::CLOEXEC)?));
        usable.map_err(|error| {
            Error::config("what systemd hands over is not a socket that listens for TCP connections")
                .source(error)
                .hint("give the .socket unit an address and a port in ListenStream=, such as 127.0.0.1:8080")
        })?;
        Ok(Some(listener))
    }

    /// It may start what comes after this unit.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// What it hears next is the end.
    pub fn ending(&self) {
        self.tell("STOPPING=1");
    }

    /// Tells it that the process lives, until this is dropped.
    pub async fn keep_alive(&self) {
        let Some(watchdog) = self.watchdog else { return };
        loop {
            self.tell("WATCHDOG=1");
            tokio::time::sleep(watchdog / 2).await;
        }
    }

    fn tell(&self, state: &str) {
        let Some(place) = &self.notify else { return };
        if let Err(error) = send(place, state) {
            tracing::warn!("systemd was not told {state}: {error}");
        }
    }
}

fn send(place: &str, state: &str) -> io::Result<()> {
    let address = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    let socket = UnixDatagram::unbound()?;
    // What does not read must not stop this process for long.
    socket.set_write_timeout(Some(Duration::from_millis(500)))?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_is_said_to_another_process_is_not_for_this_one() {
        let own = std::process::id().to_string();
        let theirs = env(&[
            ("LISTEN_PID", "1"),
            ("LISTEN_FDS", "1"),
            ("WATCHDOG_PID", "1"),
            ("WATCHDOG_USEC", "1000"),
        ]);
        let mut none = Systemd::of(&theirs);
        assert!(none.watchdog.is_none() && none.listener().unwrap().is_none());
        let several = env(&[("LISTEN_PID", &own), ("LISTEN_FDS", "2"), ("WATCHDOG_USEC", "1000")]);
        let mut several = Systemd::of(&several);
        assert_eq!(several.watchdog, Some(Duration::from_millis(1)));
        assert!(several.listener().is_err());
    }
}
