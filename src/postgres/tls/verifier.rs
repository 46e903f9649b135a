//! Checks a server's certificate, as far as the sslmode asks for it.
//!
//! rustls' own verifier does the work. It does not accept X.509 version 1 certificates, names in the subject, or a
//! self-signed certificate that is its own root. But exactly these result from the commands in PostgreSQL's manual
//! (`openssl x509 -req` and `openssl req -x509`), and libpq accepts them. So if rustls cannot read a certificate,
//! this module checks one link: a server certificate that a root has signed, or that is a root itself.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::Roots;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CertificateCheck {
    Nothing,
    /// Only the chain, whatever the name.
    Chain,
    ChainAndName,
}

#[derive(Debug)]
pub(super) struct Verifier {
    check: CertificateCheck,
    webpki: Option<Arc<WebPkiServerVerifier>>,
    /// Empty if a revocation list is used, because the simple check does not read it.
    plain_roots: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(
        check: CertificateCheck,
        roots: Option<Roots>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, crate::error::Error> {
        let webpki = match &roots {
            Some(roots) => roots.webpki(provider)?,
            None => None,
        };
        let plain_roots = roots
            .filter(|roots| roots.revoked.is_empty())
            .map(|roots| roots.certificates)
            .unwrap_or_default();
        Ok(Self {
            check,
            webpki,
            plain_roots,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// One link: the certificate is one of the roots, or a root has signed it.
    fn verify_plainly(&self, server: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
        let certificate = parse(server)?;
        check_dates(&certificate, now)?;
        if self.plain_roots.iter().any(|root| root.as_ref() == server.as_ref()) {
            return Ok(());
        }
        // rustls checks certificates with extensions; accepting them here could bypass one of its rules.
        if certificate.tbs_certificate().extensions().is_some() {
            return Err(CertificateError::UnknownIssuer);
        }
        for root in &self.plain_roots {
            let Ok(root) = parse(root) else { continue };
            if root.tbs_certificate().subject() == certificate.tbs_certificate().issuer()
                && may_sign(&root)
                && check_dates(&root, now).is_ok()
                && self.signed_by(server, &certificate, &root)
            {
                return Ok(());
            }
        }
        Err(CertificateError::UnknownIssuer)
    }

    /// `der` is the certificate in its original bytes.
    fn signed_by(&self, der: &[u8], certificate: &Certificate, root: &Certificate) -> bool {
        let (Ok(message), Ok(identifier)) = (signed_part(der), identifier(certificate.signature_algorithm())) else {
            return false;
        };
        let Some(signature) = certificate.signature().as_bytes() else {
            return false;
        };
        let key = root.tbs_certificate().subject_public_key_info();
        self.algorithms
            .all
            .iter()
            .filter(|algorithm| algorithm.signature_alg_id().as_ref() == identifier)
            .any(|algorithm| verify(*algorithm, key, message, signature))
    }

    /// The server's proof that it has the certificate's key. It is checked with only the key, because rustls' own
    /// function already refuses version 1 certificates at this point.
    fn verify_handshake(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = parse(certificate)?;
        let key = certificate.tbs_certificate().subject_public_key_info();
        let candidates = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == signed.scheme)
            .map(|(_, candidates)| *candidates)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        if candidates
            .iter()
            .any(|algorithm| verify(*algorithm, key, message, signed.signature()))
        {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check == CertificateCheck::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let verdict = match &self.webpki {
            Some(webpki) => webpki.verify_server_cert(server, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let error = match verdict {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        match &error {
            // rustls checks the name last, so the chain is good. (A test makes sure of this.)
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => {}
            Error::InvalidCertificate(
                CertificateError::Revoked
                | CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => return Err(error),
            _ => self.verify_plainly(server, now).map_err(|_| error.clone())?,
        }
        if self.check == CertificateCheck::Chain || matches_name(server, name) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(match error {
                Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                ) => error,
                _ => CertificateError::NotValidForName.into(),
            })
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_handshake(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.3 does not allow PKCS#1 and SHA-1 signatures in the handshake.
        match signed.scheme {
            SignatureScheme::RSA_PKCS1_SHA1
            | SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
            | SignatureScheme::ECDSA_SHA1_Legacy => {
                Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
            }
            _ => self.verify_handshake(message, certificate, signed),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, CertificateError> {
    Certificate::from_der(certificate).map_err(|error| CertificateError::Other(OtherError(Arc::new(error))))
}

fn check_dates(certificate: &Certificate, now: UnixTime) -> Result<(), CertificateError> {
    let validity = certificate.tbs_certificate().validity();
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet);
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired);
    }
    Ok(())
}

/// Whether a root may sign a server's certificate: a CA, with no restriction that this module does not check.
fn may_sign(root: &Certificate) -> bool {
    let Some(extensions) = root.tbs_certificate().extensions() else {
        // Version 1 has no such mark, so being in the list of roots is enough.
        return root.tbs_certificate().subject() == root.tbs_certificate().issuer();
    };
    let mut is_ca = false;
    for extension in extensions {
        let value = extension.extn_value.as_bytes();
        if extension.extn_id == BasicConstraints::OID {
            is_ca = BasicConstraints::from_der(value).is_ok_and(|constraints| constraints.ca);
        } else if extension.extn_id == KeyUsage::OID {
            if !KeyUsage::from_der(value).is_ok_and(|usage| usage.key_cert_sign()) {
                return false;
            }
        } else if extension.critical || extension.extn_id == ExtendedKeyUsage::OID {
            return false;
        }
    }
    is_ca
}

/// The signed part, in its original bytes: encoding it again could change the form of a date.
fn signed_part(certificate: &[u8]) -> Result<&[u8], x509_cert::der::Error> {
    let parts = AnyRef::from_der(certificate)?.value();
    let (_, rest) = AnyRef::from_der_partial(parts)?;
    Ok(&parts[..parts.len() - rest.len()])
}

/// The algorithm's DER without its outer tag and length, as in rustls' tables.
fn identifier(algorithm: &x509_cert::spki::AlgorithmIdentifierOwned) -> Result<Vec<u8>, x509_cert::der::Error> {
    let mut inner = algorithm.oid.to_der()?;
    if let Some(parameters) = &algorithm.parameters {
        inner.extend(parameters.to_der()?);
    }
    Ok(inner)
}

fn verify(
    algorithm: &dyn rustls::pki_types::SignatureVerificationAlgorithm,
    key: &SubjectPublicKeyInfoOwned,
    message: &[u8],
    signature: &[u8],
) -> bool {
    identifier(&key.algorithm).is_ok_and(|identifier| algorithm.public_key_alg_id().as_ref() == identifier)
        && key
            .subject_public_key
            .as_bytes()
            .is_some_and(|public| algorithm.verify_signature(public, message, signature).is_ok())
}

/// libpq's rule: only the alternative names count, unless none of them is of the host's kind; then the subject's
/// common name counts.
fn matches_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let Ok(certificate) = parse(certificate) else {
        return false;
    };
    let names = match certificate.tbs_certificate().get_extension::<SubjectAltName>() {
        Ok(names) => names.map(|(_, names)| names.0).unwrap_or_default(),
        Err(_) => return false,
    };
    let has_dns = names.iter().any(|name| matches!(name, GeneralName::DnsName(_)));
    let has_address = names.iter().any(|name| matches!(name, GeneralName::IpAddress(_)));
    match name {
        ServerName::DnsName(host) => {
            names.iter().any(|name| match name {
                GeneralName::DnsName(pattern) => matches_pattern(pattern.as_str(), host.as_ref()),
                _ => false,
            }) || (!has_dns
                && common_name(&certificate).is_some_and(|pattern| matches_pattern(&pattern, host.as_ref())))
        }
        ServerName::IpAddress(address) => {
            let address = IpAddr::from(*address);
            names.iter().any(|name| match (name, address) {
                (GeneralName::IpAddress(bytes), IpAddr::V4(v4)) => bytes.as_bytes() == v4.octets(),
                (GeneralName::IpAddress(bytes), IpAddr::V6(v6)) => bytes.as_bytes() == v6.octets(),
                _ => false,
            }) || (!has_dns
                && !has_address
                && common_name(&certificate).is_some_and(|name| name == address.to_string()))
        }
        _ => false,
    }
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let subject = certificate.tbs_certificate().subject();
    let attribute = subject.iter().filter(|attribute| attribute.oid == COMMON_NAME).last()?;
    let value = &attribute.value;
    let text = value
        .decode_as::<Utf8StringRef>()
        .map(|text| text.as_str().to_owned())
        .or_else(|_| {
            value
                .decode_as::<PrintableStringRef>()
                .map(|text| text.as_str().to_owned())
        })
        .or_else(|_| value.decode_as::<Ia5StringRef>().map(|text| text.as_str().to_owned()));
    text.ok()
}

/// A `*` stands for exactly the first label.
fn matches_pattern(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(tail), Some((_, parent))) = (pattern.strip_prefix("*."), host.split_once('.')) else {
        return false;
    };
    tail.contains('.') && tail.eq_ignore_ascii_case(parent)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(matches_pattern("*.db.example", "a.db.example"));
        assert!(matches_pattern("DB.example", "db.EXAMPLE"));
        assert!(!matches_pattern("*.db.example", "a.b.db.example"));
        assert!(!matches_pattern("*.example", "a.example"));
        assert!(!matches_pattern("*.db.example", "db.example"));
        assert!(!matches_pattern("a.db.example", "b.db.example"));
    }

    /// Self-signed, valid for thirty days from [`FROM`].
    const DATED: &str = "308201753082011ba003020102021464441a3836c0f78173d4c7eaed4da551fc55b56f300a06082a8648ce3d040302301031 \
        0e300c06035504030c056461746564301e170d3236313132363230353935365a170d3236313232363230353935365a301031 \
        0e300c06035504030c0564617465643059301306072a8648ce3d020106082a8648ce3d0301070342000400a886ebffb385b7 \
        dc95d6b846e82b164428bd41eb704f5f65939641b2dc6696b703e2bd9b2a84bacd2ddf7e965ff262b547629fd4f80ddd5799 \
        355189cf3ac6a3533051301d0603551d0e04160414e87013a2065363d1b5dcd4b955df33f30702b4fe301f0603551d230418 \
        30168014e87013a2065363d1b5dcd4b955df33f30702b4fe300f0603551d130101ff040530030101ff300a06082a8648ce3d \
        0403020348003045022052d8e53a3d916187a75c9dfd03239745389f199edc5979520f47421f1c4b4109022100bd59ed214b \
        24178132f9de37ab20acf472cd65e93214ff8ce9615cca67a4ecee";
    const FROM: u64 = 1_795_726_796;
    const UNTIL: u64 = 1_798_318_796;

    #[test]
    fn a_certificate_is_good_from_its_first_to_its_last_second() {
        let der = CertificateDer::from(hex::decode(DATED.replace([' ', '\n'], "")).unwrap());
        let certificate = parse(&der).unwrap();
        let at = |seconds| check_dates(&certificate, UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
        assert!(matches!(at(FROM - 1), Err(CertificateError::NotValidYet)));
        assert!(at(FROM).is_ok() && at(UNTIL).is_ok());
        assert!(matches!(at(UNTIL + 1), Err(CertificateError::Expired)));
    }

    #[test]
    fn what_a_certificate_signs_is_its_first_part_as_it_came() {
        let der = hex::decode(DATED.replace([' ', '\n'], "")).unwrap();
        let certificate = parse(&CertificateDer::from(&der[..])).unwrap();
        assert_eq!(
            signed_part(&der).unwrap(),
            certificate.tbs_certificate().to_der().unwrap()
        );
        // A date before 2050 in the form of a later date: it has another type, and the year has four digits.
        let utc = b"\x17\x0d261126205956Z";
        let at = der.windows(utc.len()).position(|window| window == utc).unwrap();
        let mut other = der.clone();
        other.splice(at..at + utc.len(), *b"\x18\x0f20261126205956Z");
        // The lengths around it: of the certificate, of its signed part, and of the two dates.
        other[3] += 2;
        other[7] += 2;
        other[at - 1] += 2;
        let certificate = parse(&CertificateDer::from(&other[..])).unwrap();
        let signed = signed_part(&other).unwrap();
        assert_eq!(signed, &other[4..4 + signed.len()]);
        assert_eq!(signed.len(), certificate.tbs_certificate().to_der().unwrap().len() + 2);
    }
}
