//! The same messages with stock gpg, in both directions.

use pgstow::format::openpgp::{Head, Passphrase, SecretKey, SessionKey, Start};

use super::{SIZES, content, head, message, recipient};
use crate::support::gpg::{self, Gpg};
use crate::support::program;

#[test]
fn gpg_decrypts_a_message_of_any_length() {
    let gpg = Gpg::new(&["curve25519"]);
    let key = SessionKey::generate().unwrap();
    let head = head(&key, &["curve25519"]);
    for size in SIZES {
        let content = content(size);
        assert!(gpg.decrypted(&message(&key, &head, &content)) == content, "{size}");
    }
}

#[test]
fn each_of_several_readers_decrypts_with_gpg() {
    let key = SessionKey::generate().unwrap();
    let readers = ["p256", "curve25519", "rsa4096", "p384", "primary", "p521"];
    let message = message(&key, &head(&key, &readers), b"rows");
    for reader in readers {
        // Its secret key is not kept.
        if reader != "rsa4096" {
            assert_eq!(Gpg::new(&[reader]).decrypted(&message), b"rows", "{reader}");
        }
    }
    let other = Gpg::new(&["two"]).decrypt(&message);
    assert_eq!(
        (other.status.code(), other.stdout.len()),
        (Some(2), 0),
        "{}",
        other.stderr
    );
}

#[test]
fn gpg_decrypts_with_the_passphrase() {
    let gpg = Gpg::new(&[]);
    let key = SessionKey::generate().unwrap();
    let packet = Passphrase::new("correct horse".to_owned().into())
        .encrypt(&key)
        .unwrap();
    let reader = recipient(&gpg::public("p256")).encrypt(&key).unwrap();
    let message = message(&key, &Head::new(&[reader, packet]).unwrap(), b"rows");
    let decrypt = |passphrase: &str| {
        program::run_with_input(gpg.command().args(["--passphrase", passphrase, "--decrypt"]), &message)
    };
    let right = decrypt("correct horse");
    assert_eq!(right.stdout, b"rows", "{}", right.stderr);
    assert!(!decrypt("battery staple").status.success());
}

#[test]
fn session_keys_before_a_message_let_a_new_reader_decrypt_it() {
    let key = SessionKey::generate().unwrap();
    let message = message(&key, &head(&key, &["p256"]), b"rows");
    let gpg = Gpg::new(&["curve25519"]);
    assert!(!gpg.decrypt(&message).status.success());
    let new = recipient(&gpg::public("curve25519")).encrypt(&key).unwrap();
    assert_eq!(gpg.decrypted(&[new.to_bytes(), message].concat()), b"rows");
}

#[test]
fn session_keys_that_gpg_has_encrypted_are_decrypted() {
    let gpg = Gpg::new(&["curve25519", "p521", "primary"]);
    // Little work: gpg does it as well.
    let options = [
        "--passphrase",
        "correct horse",
        "--cipher-algo",
        "AES256",
        "--s2k-count",
        "65536",
    ];
    let encrypt = |more: &[&str]| {
        let mut command = gpg.command();
        Start::parse(&program::succeed_with_input(command.args(options).args(more), b"rows").stdout).unwrap()
    };
    for name in ["curve25519", "p521", "primary"] {
        let to = ["--recipient", name, "--encrypt"];
        // A reader whose key is not named is found by trying.
        let hidden = ["--hidden-recipient", name, "--encrypt"];
        for start in [encrypt(&to), encrypt(&hidden)] {
            let key = SecretKey::parse(&gpg::secret(name), None).unwrap().open(&start);
            assert!(start.fits(&key.unwrap()), "{name}");
        }
    }
    let passphrase = Passphrase::new("correct horse".to_owned().into());
    for hash in ["SHA1", "SHA256", "SHA512"] {
        let alone = encrypt(&["--s2k-digest-algo", hash, "--symmetric"]);
        let key = passphrase.open(&alone);
        assert!(alone.fits(&key.unwrap()), "{hash}");
        let both = encrypt(&[
            "--s2k-digest-algo",
            hash,
            "--recipient",
            "p521",
            "--encrypt",
            "--symmetric",
        ]);
        let key = passphrase.open(&both);
        assert!(both.fits(&key.unwrap()), "{hash}, and a key");
    }
}

#[test]
fn gpg_does_not_succeed_with_a_damaged_message() {
    let gpg = Gpg::new(&["curve25519"]);
    let key = SessionKey::generate().unwrap();
    let whole = message(&key, &head(&key, &["curve25519"]), &content(1000));
    for at in [Head::LENGTH + 100, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert_eq!(gpg.decrypt(&flipped).status.code(), Some(2), "a bit of byte {at}");
    }
    // The one damage that gpg does not notice; the manifest says how long a message is.
    let cut = gpg.decrypt(&whole[..Head::LENGTH]);
    assert_eq!((cut.status.code(), cut.stdout.len()), (Some(0), 0), "{}", cut.stderr);
}
