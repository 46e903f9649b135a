//! libpq's `sslmode` and certificate files, on rustls.
//!
//! As in libpq, `require` with a root certificate checks the chain as `verify-ca` does; so do `allow` and `prefer`,
//! which then fall back to a plain connection. It is stricter in one point: a named certificate file that does not
//! exist is an error from `require` on, not only in `verify-…`. With a weaker mode the named files may be missing, as
//! in libpq.

mod connector;
mod verifier;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{ClientConfig, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, SupportedProtocolVersion, version};

pub(super) use self::connector::{Connector, NoAgreement, binding};
use self::verifier::{CertificateCheck, Verifier};
use super::ConnectionInfo;
use crate::error::{Error, Result};
use crate::run::named_file;

/// One way to open the connection.
#[derive(Clone)]
pub(super) enum Attempt {
    Plain,
    /// TLS if the server has it, otherwise plain: the first attempt of `prefer`.
    Offered(Tls),
    Required(Tls),
}

#[derive(Clone)]
pub(super) struct Tls {
    pub connector: Connector,
    pub direct: bool,
}

/// The ways to open this connection, in the order in which libpq tries them.
pub(super) fn attempts(info: &ConnectionInfo, home: Option<&Path>) -> Result<Vec<Attempt>> {
    let system_roots = param(info, "sslrootcert") == Some("system");
    let mode = param(info, "sslmode").unwrap_or(if system_roots { "verify-full" } else { "prefer" });
    if system_roots && mode != "verify-full" {
        return Err(Error::config(format!(
            "sslrootcert=system needs sslmode=verify-full, not {mode}"
        )));
    }
    let direct = param(info, "sslnegotiation") == Some("direct");
    if direct && !matches!(mode, "require" | "verify-ca" | "verify-full") {
        return Err(Error::config(format!(
            "sslnegotiation=direct needs sslmode=require or stronger, not {mode}"
        )));
    }
    // libpq never uses TLS over a socket file, whatever the mode.
    if mode == "disable" || info.is_socket() {
        return Ok(vec![Attempt::Plain]);
    }
    let tls = tls(info, mode, direct, home)?;
    Ok(match mode {
        "allow" => vec![Attempt::Plain, Attempt::Required(tls)],
        "prefer" => vec![Attempt::Offered(tls), Attempt::Plain],
        _ => vec![Attempt::Required(tls)],
    })
}

/// What TLS has verified about the other end of an encrypted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVerification {
    Nothing,
    /// A trusted authority has signed its certificate.
    Chain,
    /// And the certificate names the host.
    ChainAndName,
}

/// What was verified, for a connection over TLS that is open.
pub(super) fn verified(info: &ConnectionInfo, home: Option<&Path>) -> TlsVerification {
    let system_roots = param(info, "sslrootcert") == Some("system");
    if system_roots || param(info, "sslmode") == Some("verify-full") {
        TlsVerification::ChainAndName
    } else if Roots::load(info, home).is_ok_and(|roots| roots.is_some()) {
        TlsVerification::Chain
    } else {
        TlsVerification::Nothing
    }
}

fn param<'a>(info: &'a ConnectionInfo, name: &str) -> Option<&'a str> {
    info.params.get(name).map(String::as_str)
}

fn tls(info: &ConnectionInfo, mode: &str, direct: bool, home: Option<&Path>) -> Result<Tls> {
    let provider = Arc::new(ring::default_provider());
    let roots = Roots::load(info, home)?;
    let check = match mode {
        "verify-full" => CertificateCheck::ChainAndName,
        "verify-ca" => CertificateCheck::Chain,
        _ if roots.is_some() => CertificateCheck::Chain,
        _ => CertificateCheck::Nothing,
    };
    if matches!(check, CertificateCheck::Chain | CertificateCheck::ChainAndName) && roots.is_none() {
        return Err(
            Error::config(format!("sslmode={mode} needs a root certificate, and none was found"))
                .hint("set sslrootcert to the server's CA file, or to `system` for the system's own list"),
        );
    }
    let verifier = Verifier::new(check, roots, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(info)?)
        .map_err(|error| Error::internal("TLS cannot be set up").source(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match client_certificate(info, home)? {
        Some(certificate) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate))),
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = param(info, "sslsni") != Some("0");
    if direct {
        config.alpn_protocols = vec![connector::PROTOCOL.to_vec()];
    }
    let host = info.host.as_deref().unwrap_or_default();
    let name = if let Ok(name) = ServerName::try_from(host.to_owned()) {
        name
    } else if matches!(check, CertificateCheck::ChainAndName) {
        return Err(Error::config(
            "sslmode=verify-full needs a host that a certificate can name",
        ));
    } else {
        config.enable_sni = false;
        ServerName::try_from("server.invalid").map_err(|error| Error::internal("an invalid name").source(error))?
    };
    Ok(Tls {
        connector: Connector {
            config: Arc::new(config),
            name,
            must_agree: direct,
        },
        direct,
    })
}

fn versions(info: &ConnectionInfo) -> Result<Vec<&'static SupportedProtocolVersion>> {
    let least = param(info, "ssl_min_protocol_version");
    let most = param(info, "ssl_max_protocol_version");
    Ok(match (least, most) {
        (Some("TLSv1.3"), Some("TLSv1.2")) => {
            return Err(Error::config(
                "ssl_min_protocol_version is above ssl_max_protocol_version",
            ));
        }
        (Some("TLSv1.3"), _) => vec![&version::TLS13],
        (_, Some("TLSv1.2")) => vec![&version::TLS12],
        _ => vec![&version::TLS13, &version::TLS12],
    })
}

/// The trusted certificates, and the revoked ones.
struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl Roots {
    fn load(info: &ConnectionInfo, home: Option<&Path>) -> Result<Option<Self>> {
        let certificates = if param(info, "sslrootcert") == Some("system") {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return Err(
                    Error::config("sslrootcert=system: this system has no root certificates")
                        .hint("install ca-certificates, or set SSL_CERT_FILE"),
                );
            }
            found.certs
        } else {
            let Some(file) = file(info, "sslrootcert", home, "root.crt")? else {
                return Ok(None);
            };
            let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text("sslrootcert", &file)?)
                .collect::<Result<_, _>>()
                .map_err(|error| unreadable("sslrootcert", &file, &error))?;
            if certificates.is_empty() {
                return Err(Error::config(format!(
                    "sslrootcert: {} contains no certificate",
                    file.display()
                )));
            }
            certificates
        };
        let revoked = match file(info, "sslcrl", home, "root.crl")? {
            Some(file) => CertificateRevocationListDer::pem_slice_iter(&text("sslcrl", &file)?)
                .collect::<Result<_, _>>()
                .map_err(|error| unreadable("sslcrl", &file, &error))?,
            None => Vec::new(),
        };
        Ok(Some(Self { certificates, revoked }))
    }

    /// rustls' own verifier over these roots; pgstow's verifier handles the roots that it cannot read.
    fn webpki(&self, provider: &Arc<rustls::crypto::CryptoProvider>) -> Result<Option<Arc<WebPkiServerVerifier>>> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.certificates.iter().cloned());
        if store.is_empty() {
            return Ok(None);
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
            .with_crls(self.revoked.iter().cloned())
            .build()
            .map(Some)
            .map_err(|error| Error::config("sslrootcert and sslcrl cannot be used").source(error))
    }
}

fn client_certificate(info: &ConnectionInfo, home: Option<&Path>) -> Result<Option<CertifiedKey>> {
    if param(info, "sslcertmode") == Some("disable") {
        return Ok(None);
    }
    let Some(file_of_chain) = file(info, "sslcert", home, "postgresql.crt")? else {
        return Ok(None);
    };
    let Some(file_of_key) = file(info, "sslkey", home, "postgresql.key")? else {
        return Err(Error::config("sslcert is given, but no sslkey"));
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text("sslcert", &file_of_chain)?)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable("sslcert", &file_of_chain, &error))?;
    if chain.is_empty() {
        return Err(Error::config(format!(
            "sslcert: {} contains no certificate",
            file_of_chain.display()
        )));
    }
    let bad_key = || {
        Error::config(format!("sslkey: {} cannot be used", file_of_key.display()))
            .hint("use a PEM key without passphrase that only this user can read")
    };
    let key = PrivateKeyDer::from_pem_slice(&text("sslkey", &file_of_key)?);
    let key = key.map_err(|error| bad_key().source(error))?;
    let key = ring::sign::any_supported_type(&key).map_err(|error| bad_key().source(error))?;
    let certificate = CertifiedKey::new(chain, key);
    // All other errors are about X.509 version 1, which rustls does not accept but a server may.
    if matches!(
        certificate.keys_match(),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch))
    ) {
        return Err(Error::config(format!(
            "sslcert and sslkey do not belong together: {} and {}",
            file_of_chain.display(),
            file_of_key.display()
        )));
    }
    Ok(Some(certificate))
}

/// The file that a parameter names, or libpq's default file in the home folder if it exists.
fn file(info: &ConnectionInfo, name: &str, home: Option<&Path>, default: &str) -> Result<Option<PathBuf>> {
    if let Some(named) = param(info, name) {
        let path = PathBuf::from(named);
        return match path.metadata() {
            Ok(_) => Ok(Some(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && is_optional(info) => Ok(None),
            Err(error) => Err(Error::config(format!("{name}: {named} cannot be read")).source(error)),
        };
    }
    let path = home.map(|home| home.join(".postgresql").join(default));
    Ok(path.filter(|path| path.exists()))
}

fn is_optional(info: &ConnectionInfo) -> bool {
    matches!(param(info, "sslmode"), None | Some("allow" | "prefer"))
}

/// More than all roots of a system, and a long list of revoked certificates.
const LONGEST: u64 = 64 << 20;

fn text(name: &str, file: &Path) -> Result<Vec<u8>> {
    named_file::read(file, LONGEST)
        .map_err(|error| Error::config(format!("{name}: {} cannot be read", file.display())).source(error))
}

fn unreadable(name: &str, file: &Path, error: &pem::Error) -> Error {
    Error::config(format!("{name}: {} cannot be read", file.display())).source(error.to_string())
}
