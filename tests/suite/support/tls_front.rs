//! TLS before a server that has none, by the certificate of the test servers; and a proxy that leads there, as
//! companies have them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::services::postgres_ca;

/// As `localhost`, signed by the test servers' authority.
pub fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(postgres_ca().with_file_name("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(postgres_ca().with_file_name("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A port of its own, and who listens there.
pub fn listen() -> (u16, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    (listener.local_addr().unwrap().port(), listener)
}

/// Serves each client that comes, in a thread of its own that ends with the program.
pub fn accept<F>(listener: std::net::TcpListener, serve: impl Fn(TcpStream) -> F + Send + 'static)
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let serving = serve(client);
                tokio::spawn(async move { drop(serving.await) });
            }
        });
    });
}

/// Listens on a port of its own, and counts who comes.
pub struct Front {
    pub port: u16,
    connections: Arc<AtomicUsize>,
}

impl Front {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// `https://localhost:port`, and behind it this `http://host:port`.
    pub fn tls(endpoint: &str) -> Self {
        let address = endpoint
            .strip_prefix("http://")
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        let acceptor = acceptor();
        Self::start(move |client| {
            let (acceptor, address) = (acceptor.clone(), address.clone());
            async move {
                let mut client = acceptor.accept(client).await?;
                let mut server = TcpStream::connect(address).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
            }
        })
    }

    /// An HTTP proxy for CONNECT.
    pub fn proxy() -> Self {
        Self::start(|mut client| async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await?);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let place = head.split(' ').nth(1).unwrap_or_default();
            let mut server = TcpStream::connect(place).await?;
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
        })
    }

    fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let (port, listener) = listen();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        accept(listener, move |client| {
            counter.fetch_add(1, Ordering::SeqCst);
            serve(client)
        });
        Self { port, connections }
    }
}
