//! The TLS handshake, and what the login needs from it.

use std::io;
use std::sync::Arc;

use rustls::client::ClientConfig;
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// PostgreSQL's name in TLS's protocol negotiation (ALPN).
pub(super) const PROTOCOL: &[u8] = b"postgresql";

/// How to make one handshake.
#[derive(Clone)]
pub struct Connector {
    pub(super) config: Arc<ClientConfig>,
    /// The name that the client asks for: the host, or a placeholder if the host cannot be such a name and is not
    /// checked.
    pub(super) name: ServerName<'static>,
    /// The server must confirm that it speaks PostgreSQL's protocol. Otherwise an attacker could lead a client that
    /// starts with TLS at once to another kind of server with the same certificate.
    pub(super) must_agree: bool,
}

/// The other end does not confirm that it is PostgreSQL.
#[derive(Debug, thiserror::Error)]
#[error("the server did not agree to speak PostgreSQL's protocol (ALPN)")]
pub struct NoAgreement;

impl Connector {
    pub async fn connect<S>(self, stream: S) -> io::Result<Encrypted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = tokio_rustls::TlsConnector::from(self.config);
        let stream = connector.connect(self.name, stream).await?;
        if self.must_agree && stream.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
            return Err(io::Error::other(NoAgreement));
        }
        Ok(stream)
    }
}

pub type Encrypted<S> = tokio_rustls::client::TlsStream<S>;

/// The data that binds a login to this connection (RFC 5929, `tls-server-end-point`): the digest of the server's
/// certificate, with the algorithm of its signature.
pub fn binding<S>(stream: &Encrypted<S>) -> Option<Vec<u8>> {
    let certificates = stream.get_ref().1.peer_certificates();
    certificates.and_then(|all| all.first()).and_then(|own| end_point(own))
}

/// `None` for a signature without a digest of its own, such as Ed25519.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    Some(match parsed.signature_algorithm().oid.to_string().as_str() {
        // MD5 and SHA-1, which the RFC replaces by SHA-256, and SHA-256 itself; first with RSA, then with ECDSA.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Sha256::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}
