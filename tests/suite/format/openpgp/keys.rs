//! Which keys session keys are encrypted to, and which keys decrypt them.

use pgstow::format::openpgp::{
    Head, KeyError, OpenError, Passphrase, Recipient, SecretKey, SessionKey, SessionKeyPacket, Start,
};

use super::{head, message, now, recipient};
use crate::support::gpg;

fn refused(name: &str) -> String {
    let refused = Recipient::parse(&gpg::public(name), now()).unwrap_err().to_string();
    // Without the fingerprint.
    match (refused.find(" ("), refused.find(')')) {
        (Some(begin), Some(end)) => format!("{}{}", &refused[..begin], &refused[end + 1..]),
        _ => refused,
    }
}

fn start(key: &SessionKey, readers: &[&str]) -> Start {
    Start::parse(&message(key, &head(key, readers), b"")).unwrap()
}

fn opened(name: &str, start: &Start) -> Result<SessionKey, OpenError> {
    SecretKey::parse(&gpg::secret(name), None).unwrap().open(start)
}

#[test]
fn keys_that_cannot_serve_are_refused_with_the_reason() {
    for (name, why) in [
        ("expired", "the key of expired <expired@example.com> has expired"),
        ("revoked", "the key of revoked <revoked@example.com> is revoked"),
        (
            "rsa1024",
            "the key of rsa1024 <rsa1024@example.com> uses RSA with 1024 bits, which pgstow cannot do",
        ),
        (
            "elgamal",
            "the key of elgamal <elgamal@example.com> uses ElGamal, which pgstow cannot do",
        ),
        (
            "brainpool",
            "the key of brainpool <brainpool@example.com> uses the curve brainpoolP256r1, which pgstow cannot do",
        ),
        (
            "secp256k1",
            "a key in it uses the curve secp256k1, which pgstow cannot do",
        ),
        (
            "signs",
            "the key of signs <signs@example.com> has no part that may encrypt",
        ),
    ] {
        assert_eq!(refused(name), why);
    }
    for (name, why) in [("subkey-expired", "has expired"), ("subkey-revoked", "is revoked")] {
        let refused = refused(name);
        assert!(
            refused.contains("has no part that may encrypt: ") && refused.ends_with(why),
            "{refused}"
        );
    }
    let secret = Recipient::parse(&gpg::secret("curve25519"), now()).unwrap_err();
    assert!(matches!(secret, KeyError::Secret { .. }), "{secret}");
    // `gpg --export nobody` prints nothing, and succeeds.
    assert_eq!(Recipient::parse(b"", now()).unwrap_err(), KeyError::Empty);
    assert_eq!(
        Recipient::parse(b"ssh-ed25519 AAAA", now()).unwrap_err(),
        KeyError::Shape
    );
    let cut = &gpg::public("rsa4096")[..900];
    assert!(Recipient::parse(cut, now()).is_err());
}

#[test]
fn a_key_is_valid_from_when_it_was_made_until_it_expires() {
    let at = |time: &str| Recipient::parse(&gpg::public("expired"), time.parse().unwrap()).map(|keys| keys.len());
    assert!(matches!(at("2019-12-31T00:00:00Z"), Err(KeyError::NotSigned { .. })));
    assert_eq!(at("2020-12-30T00:00:00Z"), Ok(1));
    assert!(matches!(at("2021-01-02T00:00:00Z"), Err(KeyError::Expired { .. })));
}

#[test]
fn the_newest_part_that_may_encrypt_is_used() {
    for name in ["replaced", "two", "primary", "curve25519", "p256", "p384", "p521"] {
        let key = SessionKey::generate().unwrap();
        let start = start(&key, &[name]);
        let readers: Vec<_> = start.packets.iter().filter_map(SessionKeyPacket::reader).collect();
        assert_eq!(readers, [recipient(&gpg::public(name)).key_id()]);
        let opened = opened(name, &start).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(start.fits(&opened), "{name}");
    }
    // Before the newer part was made, the older one was used.
    let then = "2021-06-01T00:00:00Z".parse().unwrap();
    let older = Recipient::parse(&gpg::public("two"), then).unwrap();
    assert_ne!(older[0].key_id(), recipient(&gpg::public("two")).key_id());
}

#[test]
fn a_file_may_hold_several_keys() {
    let both = [gpg::public("curve25519"), b"\n".to_vec(), gpg::public("p256")].concat();
    let keys = Recipient::parse(&both, now()).unwrap();
    let names: Vec<_> = keys.iter().map(|key| key.name().split_once(' ').unwrap().0).collect();
    assert_eq!(names, ["curve25519", "p256"]);
    // One that cannot serve is not passed over.
    let with_expired = [gpg::public("curve25519"), gpg::public("expired")].concat();
    assert!(matches!(
        Recipient::parse(&with_expired, now()),
        Err(KeyError::Expired { .. })
    ));
}

#[test]
fn a_key_that_is_none_of_the_readers_says_who_they_are() {
    let key = SessionKey::generate().unwrap();
    let start = start(&key, &["p256", "p384"]);
    let error = opened("curve25519", &start).unwrap_err();
    let ids = ["p256", "p384"].map(|name| recipient(&gpg::public(name)).key_id());
    assert_eq!(
        error.to_string(),
        format!("it is not encrypted to this key, but to {}, {}", ids[0], ids[1])
    );
    let public = SecretKey::parse(&gpg::public("p256"), None).unwrap_err();
    assert!(matches!(public, KeyError::Public { .. }), "{public}");
}

#[test]
fn a_protected_key_needs_its_passphrase() {
    let key = SessionKey::generate().unwrap();
    let start = start(&key, &["protected"]);
    let open = |passphrase: Option<&str>| {
        let passphrase = passphrase.map(|text| text.to_owned().into());
        let key = SecretKey::parse(&gpg::secret("protected"), passphrase.as_ref()).unwrap();
        key.open(&start)
    };
    assert!(matches!(open(None), Err(OpenError::Protected { .. })));
    assert!(matches!(open(Some("battery staple")), Err(OpenError::Locked { .. })));
    assert!(start.fits(&open(Some("correct horse")).unwrap()));
}

#[test]
fn a_passphrase_opens_what_it_has_encrypted_and_nothing_else() {
    let key = SessionKey::generate().unwrap();
    let passphrase = |text: &str| Passphrase::new(text.to_owned().into());
    let packet = passphrase("correct horse").encrypt(&key).unwrap();
    assert_eq!(packet.reader(), None);
    let start = |packets: &[_]| Start::parse(&message(&key, &Head::new(packets).unwrap(), b"")).unwrap();
    let with = start(&[packet]);
    assert!(with.fits(&passphrase("correct horse").open(&with).unwrap()));
    assert_eq!(
        passphrase("battery staple").open(&with).unwrap_err(),
        OpenError::WrongPassphrase
    );
    let without = start(&[recipient(&gpg::public("p256")).encrypt(&key).unwrap()]);
    assert_eq!(
        passphrase("correct horse").open(&without).unwrap_err(),
        OpenError::NoPassphrase
    );
}

#[test]
fn a_head_has_room_for_seven_large_keys_or_forty_two_small_ones() {
    let key = SessionKey::generate().unwrap();
    for (name, most) in [("rsa4096", 7), ("curve25519", 42)] {
        let reader = recipient(&gpg::public(name));
        let packet = reader.encrypt(&key).unwrap();
        for readers in 0..=most {
            let head = Head::new(&vec![packet.clone(); readers]).unwrap();
            assert_eq!(head.bytes().len(), Head::LENGTH);
        }
        let error = Head::new(&vec![packet; most + 1]).unwrap_err();
        assert!(matches!(error, KeyError::TooMany { room: Head::LENGTH, .. }), "{error}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let key = SessionKey::generate().unwrap();
    let passphrase = Passphrase::new("correct horse".to_owned().into());
    let secret = SecretKey::parse(&gpg::secret("protected"), None).unwrap();
    assert_eq!(
        format!("{key:?} {passphrase:?} {secret:?}"),
        "SessionKey(…) Passphrase(…) SecretKey(…)"
    );
}
