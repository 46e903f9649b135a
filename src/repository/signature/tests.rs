use bytes::Bytes;

use super::file::SignatureFile;
use super::key::PublicKey;
use super::secret::{SecretKey, Unusable};
use super::*;
use proptest::prelude::*;

/// Made by stock minisign 0.11: `minisign -G -W`, and `minisign -S -t 'x y'` of "hello\n".
const SECRET: &str = "untrusted comment: minisign encrypted secret key
RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA58AeriPaT3ZfNSTmmIvG+r6lIb0yDJ56qedXuS/iN3goPginDyU0ykQeMps+sFgessBcgeDEPLy+NUK2InuvgdHFGh/B1ufUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
";
const PUBLIC: &str = "untrusted comment: minisign public key 764FDA23AE1EC0E7
RWTnwB6uI9pPdkQeMps+sFgessBcgeDEPLy+NUK2InuvgdHFGh/B1ufU
";
const SIGNATURE: &str = "untrusted comment: zz
RUTnwB6uI9pPdtFZ+bOryJftnnT1xpfxzqc3vlPRI8e0inpXQqsS66R3eie3MO3icujugDgeB4ivyQV74Sw++qDJfJqtbqRpCQo=
trusted comment: x y
KmwJNmSN4KM3GR906+3eXfgVkbzscDRv5jT3GSxGFm1g00v2Q+Cc3NwhrvE3T2wrqF9Vs2+z+aZJj25DO+AwAw==
";

fn id() -> BackupId {
    "shop/20260131T040500Z-full".parse().unwrap()
}

fn public() -> PublicKey {
    PublicKey::parse(PUBLIC).unwrap()
}

fn signer() -> Signer {
    Signer::here(SecretKey::parse(SECRET, None).unwrap())
}

async fn signed(subject: Subject<'_>, bytes: &[u8]) -> Bytes {
    let now = "2026-01-31T04:06:00.25Z".parse().unwrap();
    signer().sign(subject, bytes, now).await.unwrap()
}

#[test]
fn what_stock_minisign_made_is_read() {
    assert_eq!(public().id().to_string(), "764FDA23AE1EC0E7");
    assert_eq!(public().to_file(), PUBLIC);
    assert_eq!(*signer().public(), public());
    let (id, trust) = (id(), Trust::new(vec![public()]));
    let subject = Subject::manifest(&id);
    let check = |bytes: &[u8]| trust.check(subject, bytes, Some(SIGNATURE.as_bytes()));
    assert_eq!(check(b"hello\n"), Ok(public().id()));
    assert_eq!(check(b"hello"), Err(Flaw::Wrong(public().id())));
    assert_eq!(trust.check(subject, b"hello\n", None), Err(Flaw::Missing));
    assert_eq!(
        Trust::default().check(subject, b"hello\n", Some(SIGNATURE.as_bytes())),
        Err(Flaw::Untrusted(public().id()))
    );
}

#[tokio::test]
async fn a_signature_serves_for_its_file_and_its_backup_alone() {
    let (this, other) = (id(), "shop/20260131T040500Z-incr".parse().unwrap());
    let trust = Trust::new(vec![public()]);
    let printed = signed(Subject::manifest(&this), b"bytes").await;
    let file = SignatureFile::parse(&printed).unwrap();
    assert_eq!(
        file.comment,
        "pgstow manifest.json of shop/20260131T040500Z-full, signed 2026-01-31T04:06:00Z"
    );
    assert!(trust.check(Subject::manifest(&this), b"bytes", Some(&printed)).is_ok());
    for subject in [Subject::verification(&this), Subject::manifest(&other)] {
        let flaw = trust.check(subject, b"bytes", Some(&printed)).unwrap_err();
        assert_eq!(flaw, Flaw::Other(file.comment.clone()));
    }
    // The beginning of another id is not it.
    assert!(!Subject::manifest(&this).fits("pgstow manifest.json of shop/20260131T040500Z-fullest, signed x"));
    assert!(!Subject::manifest(&this).fits("pgstow anything"));
    assert!(Subject::manifest(&this).fits("timestamp:1 file:manifest.json hashed"));
}

#[test]
fn a_password_hides_the_key_and_the_wrong_one_does_not_open_it() {
    let (public, text) = SecretKey::generate(Some(b"correct horse")).unwrap();
    assert_eq!(SecretKey::parse(&text, None).err(), Some(Unusable::NeedsPassword));
    assert_eq!(SecretKey::parse(&text, Some(b"wrong")).err(), Some(Unusable::Wrong));
    assert_eq!(SecretKey::parse(&text, Some(b"correct horse")).unwrap().public, public);
    let (public, text) = SecretKey::generate(None).unwrap();
    assert_eq!(SecretKey::parse(&text, None).unwrap().public, public);
    assert!(matches!(SecretKey::parse(PUBLIC, None), Err(Unusable::Shape(_))));
    assert!(PublicKey::parse(&text).is_err());
}

#[test]
fn a_key_of_kms_is_read_in_every_shape() {
    let der = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEnARnAUZe9HNykMkRzqg1uot45fxE2UVAUatniT1ArWaa1z3rjt/eQEPAd1KoMbkxlfqEXNTktdDNQfa9WlBXvQ==";
    let key = PublicKey::parse(der).unwrap();
    assert!(!key.is_minisigns() && key.to_file().contains("pgstow public key"));
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n",
        &der[..64],
        &der[64..]
    );
    for shape in [pem, key.to_string(), key.to_file()] {
        assert_eq!(PublicKey::parse(&shape).as_ref(), Ok(&key));
    }
    for wrong in [
        "",
        "RW",
        "not base64!",
        "RWTnwB6uI9pPdkQeMps=",
        "-----BEGIN PUBLIC KEY-----\nMFkw",
    ] {
        assert!(PublicKey::parse(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0..SIGNATURE.len(), flip: u8) {
        drop(SignatureFile::parse(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        drop(PublicKey::parse(&text));
        drop(SecretKey::parse(&text, Some(b"x")));
        // Whatever is changed in a good one, it is not accepted for what it was.
        let mut changed = SIGNATURE.as_bytes().to_vec();
        changed[at] ^= flip;
        let (id, trust) = (id(), Trust::new(vec![public()]));
        let accepted = trust.check(Subject::manifest(&id), b"hello\n", Some(&changed)).is_ok();
        let untrusted = SIGNATURE.find('\n').unwrap();
        prop_assert!(!accepted || flip == 0 || at < untrusted || changed.trim_ascii() == SIGNATURE.trim().as_bytes(), "{at}");
    }
}
