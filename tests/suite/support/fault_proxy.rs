//! An HTTP proxy in front of an S3 server that does, on request, what networks and stores do
//! when they fail. It is scripted per operation and call number:
//!
//! ```ignore
//! let proxy = FaultProxy::start("127.0.0.1:8333").await;
//! proxy.fault(On::op(Op::UploadPart).calls(2..=2), Fault::Reset { after: 100_000 });
//! // … let the code under test talk to `proxy.url()` …
//! assert_eq!(proxy.count(Op::UploadPart), 4);
//! ```
//!
//! The `Host` header passes unchanged, so signatures made for the proxy's address stay valid.
//! Requests that no rule names are forwarded as they are, one upstream connection each. Every answer
//! closes its connection, unless the proxy is told to keep them.

#![allow(dead_code)] // each test binary uses a part of it

mod fault;
mod message;
mod passage;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use fault::{Fault, On, Op};
use message::Head;

/// One request as the proxy saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub op: Op,
    pub method: String,
    pub target: String,
    pub fault: Option<Fault>,
}

struct Rule {
    on: On,
    fault: Fault,
    matched: usize,
}

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    seen: Vec<Seen>,
    answered: u64,
    delayed: usize,
    connections: usize,
    /// Refusals, and answers that pass whole, leave the connection open.
    keeps: bool,
    remembers: bool,
    /// The first answer to each list while it remembered.
    lists: HashMap<String, Vec<u8>>,
}

pub struct FaultProxy {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// `upstream` is `host:port`, with or without `http://` before it.
    pub async fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = Arc::clone(&script);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.lock().expect("no panic").connections += 1;
                // A broken connection is what this proxy is for: nothing to report.
                tokio::spawn(passage::serve(client, upstream.clone(), Arc::clone(&shared)));
            }
        });
        Self {
            address,
            script,
            accepting,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a fault. The first rule that matches a request and whose calls include it decides.
    pub fn fault(&self, on: On, fault: Fault) {
        let rule = Rule { on, fault, matched: 0 };
        self.script.lock().expect("no panic").rules.push(rule);
    }

    /// From now on everything is forwarded.
    pub fn heal(&self) {
        self.script.lock().expect("no panic").rules.clear();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.script.lock().expect("no panic").seen.clone()
    }

    /// Bytes of all answers' bodies that were passed on whole.
    pub fn answered(&self) -> u64 {
        self.script.lock().expect("no panic").answered
    }

    /// How many requests [`Fault::Delay`] holds now, also those whose sender no longer waits.
    pub fn delayed(&self) -> usize {
        self.script.lock().expect("no panic").delayed
    }

    /// From now on connections are kept open, as a store keeps them.
    pub fn keep_connections(&self) {
        self.script.lock().expect("no panic").keeps = true;
    }

    /// Keeps the first answers to lists, for [`Fault::Stale`], or no more of them.
    pub fn remember_lists(&self, remembers: bool) {
        self.script.lock().expect("no panic").remembers = remembers;
    }

    /// How many were opened to it.
    pub fn connections(&self) -> usize {
        self.script.lock().expect("no panic").connections
    }

    pub fn count(&self, op: Op) -> usize {
        self.seen().iter().filter(|seen| seen.op == op).count()
    }

    /// How many requests a fault has hit.
    pub fn faults(&self) -> usize {
        self.seen().iter().filter(|seen| seen.fault.is_some()).count()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Script {
    fn decide(&mut self, method: &str, target: &str, head: &Head) -> Option<Fault> {
        let op = Op::of(method, target);
        let mut fault = None;
        for rule in &mut self.rules {
            let on = &rule.on;
            let matches = on.op.is_none_or(|wanted| wanted == op)
                && on.target.as_ref().is_none_or(|part| target.contains(part))
                && on.bucket.as_ref().is_none_or(|start| target.starts_with(start))
                && on.header.as_ref().is_none_or(|name| head.get(name).is_some())
                && on.method.as_ref().is_none_or(|wanted| wanted == method)
                && on.until.is_none_or(|until| Instant::now() < until);
            if matches {
                rule.matched += 1;
                if fault.is_none() && on.calls.contains(&rule.matched) {
                    fault = Some(rule.fault.clone());
                }
            }
        }
        self.seen.push(Seen {
            op,
            method: method.to_owned(),
            target: target.to_owned(),
            fault: fault.clone(),
        });
        fault
    }
}
