//! A line to the server that can be taken out of the client library after the login.
//!
//! The library does what is delicate: TLS, passwords, channel binding. COPY's rows, ten million in
//! a gigabyte, are then read by [`Wire`](super::Wire), without an allocation and a hand-over for
//! each.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::authentication::Gate;

/// What bytes come from and go to.
pub(super) trait Line: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Line for S {}

type Held = Arc<Mutex<Option<Box<dyn Line>>>>;

/// Keeps hold of the line that the library uses.
#[derive(Clone, Default)]
pub(super) struct Tap {
    socket: Held,
    encrypted: Held,
}

impl Tap {
    /// For the library to use in place of the socket. No gate where all that matters is encrypted.
    pub fn socket(&self, socket: impl Line + 'static, gate: Option<Gate>) -> Tapped {
        Tapped::new(&self.socket, socket, ChannelBinding::none(), gate)
    }

    /// For the library to use in place of the connector.
    pub fn encryption<C>(&self, connector: C, gate: Gate) -> TappedConnect<C> {
        TappedConnect {
            connector,
            held: Arc::clone(&self.encrypted),
            gate,
        }
    }

    pub fn is_encrypted(&self) -> bool {
        lock(&self.encrypted).is_some()
    }

    /// The line itself, which the library has lost then: for a moment at which neither side has
    /// anything to say.
    pub fn take(&self) -> Option<Box<dyn Line>> {
        let encrypted = lock(&self.encrypted).take();
        encrypted.or_else(|| lock(&self.socket).take())
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Tapped {
    held: Held,
    /// Asked for once, at the login.
    binding: Mutex<ChannelBinding>,
    /// Until the login is done.
    gate: Option<Gate>,
}

impl Tapped {
    fn new(held: &Held, line: impl Line + 'static, binding: ChannelBinding, gate: Option<Gate>) -> Self {
        *lock(held) = Some(Box::new(line));
        Self {
            held: Arc::clone(held),
            binding: Mutex::new(binding),
            gate,
        }
    }

    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut dyn Line>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match lock(&self.held).as_mut() {
            Some(line) => poll(Pin::new(&mut **line)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Tapped {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.poll(|line| line.poll_read(cx, buffer));
        let tapped = self.get_mut();
        if let Some(gate) = &mut tapped.gate {
            gate.hear(&buffer.filled()[before..])?;
            if gate.is_done() {
                tapped.gate = None;
            }
        }
        read
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|line| line.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|line| line.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|line| line.poll_shutdown(cx))
    }
}

impl TlsStream for Tapped {
    fn channel_binding(&self) -> ChannelBinding {
        std::mem::replace(&mut *lock(&self.binding), ChannelBinding::none())
    }
}

pub(super) struct TappedConnect<C> {
    connector: C,
    held: Held,
    gate: Gate,
}

impl<S, C> TlsConnect<S> for TappedConnect<C>
where
    C: TlsConnect<S>,
    C::Stream: Send + 'static,
    C::Future: Send + 'static,
{
    type Stream = Tapped;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Tapped, C::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.connector.connect(stream);
        Box::pin(async move {
            let stream = connecting.await?;
            let binding = stream.channel_binding();
            Ok(Tapped::new(&self.held, stream, binding, Some(self.gate)))
        })
    }
}
