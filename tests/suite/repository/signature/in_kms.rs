//! Keys in AWS KMS: no key material is here.

use std::process::Command;

use super::place::{MANIFEST, public, source};
use crate::support::kms;
use crate::support::program::{pgstow, program, run, succeed};
use crate::support::services::cloud;
use crate::support::wreck::{Site, fail, tree};

fn command(site: &Site, args: &[&str], kms: Option<&str>) -> Command {
    let mut command = pgstow();
    command.args(args).args(["--json", "--store"]).arg(site.store());
    command.env("TMPDIR", site.path().join("tmp")).current_dir(site.path());
    cloud(&mut command);
    if let Some(endpoint) = kms {
        command.env("AWS_ENDPOINT_URL_KMS", endpoint);
    }
    command
}

fn backup(site: &Site, source: &crate::support::database::Database, key: &str, kms: Option<&str>) -> Command {
    let mut backup = command(site, &["backup", "--sign-key", key], kms);
    backup.env("DATABASE_URL", source.url());
    backup
}

#[test]
fn a_key_of_p256_signs_and_verifies_by_its_arn_or_by_its_public_half() {
    let (site, source, key) = (Site::new(), source(), kms::key("ECC_NIST_P256"));
    succeed(&mut backup(&site, &source, &key, None));
    let der = kms::public_key(&key);
    let pem = site.path().join("key.pem");
    let text = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n",
        &der[..64],
        &der[64..]
    );
    std::fs::write(&pem, text).unwrap();
    let pem = pem.display().to_string();
    for keys in [key.as_str(), &der, &pem] {
        let mut verify = command(&site, &["verify", "latest"], None);
        let report = succeed(verify.env("BACKUP_VERIFY_KEYS", keys)).json();
        assert!(report["signed_by"].is_string(), "{report}");
    }
    let other = kms::key("ECC_NIST_P256");
    let mut verify = command(&site, &["verify", "latest"], None);
    fail(verify.env("BACKUP_VERIFY_KEYS", &other), "SIGNATURE", 47);
    // Results too.
    let mut verify = command(&site, &["verify", "latest", "--sign-key", &key], None);
    succeed(verify.env("BACKUP_VERIFY_KEYS", &key));
    let mut list = command(&site, &["list"], None);
    let listed = succeed(list.env("BACKUP_VERIFY_KEYS", &key)).json();
    assert_eq!(listed["backups"][0]["verified"]["status"], "ok", "{listed}");
    // One byte more in the manifest.
    let folder = site.store().join(listed["backups"][0]["id"].as_str().unwrap());
    let manifest = std::fs::read(folder.join(MANIFEST)).unwrap();
    std::fs::write(folder.join(MANIFEST), [&manifest[..], b" "].concat()).unwrap();
    let mut verify = command(&site, &["verify", "latest"], None);
    fail(verify.env("BACKUP_VERIFY_KEYS", &key), "SIGNATURE", 47);
}

#[test]
fn a_key_of_ed25519_makes_what_stock_minisign_verifies() {
    let (site, source) = (Site::new(), source());
    let endpoint = kms::with_ed25519(None);
    let key = "arn:aws:kms:eu-central-1:123456789012:alias/backups";
    let report = succeed(&mut backup(&site, &source, key, Some(&endpoint))).json();
    let mut doctor = command(&site, &["doctor", "--sign-key", key], Some(&endpoint));
    let text = run(&mut doctor).text();
    let line = text
        .split("its public key is ")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let mut minisign = program("minisign");
    minisign.args(["-V", "-m", MANIFEST, "-P", &line]);
    succeed(minisign.current_dir(site.store().join(report["id"].as_str().unwrap())));
    for keys in ["arn:aws:kms:eu-central-1:123456789012:key/backups", &line] {
        let mut verify = command(&site, &["verify", "latest"], Some(&endpoint));
        succeed(verify.env("BACKUP_VERIFY_KEYS", keys));
    }
    // An alias can be turned to another key: it may sign, and does not decide what is trusted.
    let mut verify = command(&site, &["verify", "latest"], Some(&endpoint));
    let failure = fail(verify.env("BACKUP_VERIFY_KEYS", key), "CONFIG", 2);
    assert!(failure.message.contains("alias"), "{}", failure.message);
    assert!(!public(site.path()).exists());
}

#[test]
fn a_key_that_may_not_sign_or_cannot_is_told_before_anything_is_begun() {
    let (site, source) = (Site::new(), source());
    let key = "arn:aws:kms:eu-central-1:123456789012:key/k";
    for (action, needed) in [("Sign", "kms:Sign"), ("GetPublicKey", "kms:GetPublicKey")] {
        let endpoint = kms::with_ed25519(Some(action));
        let failure = fail(&mut backup(&site, &source, key, Some(&endpoint)), "SIGNATURE", 47);
        let statement = format!(r#""Action": "{needed}", "Resource": "#);
        assert!(failure.hint.contains(&statement), "{}", failure.hint);
        assert_eq!(tree(&site.store()), [""; 0]);
    }
    let rsa = kms::key("RSA_2048");
    let failure = fail(&mut backup(&site, &source, &rsa, None), "CONFIG", 2);
    assert!(failure.hint.contains("ECC_NIST_EDWARDS25519"), "{}", failure.hint);
    let gone = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555";
    let failure = fail(&mut backup(&site, &source, gone, None), "SIGNATURE", 47);
    assert!(failure.message.contains(gone), "{}", failure.message);
    // A key that cannot be read must not mean that none is asked for.
    let mut list = command(&site, &["list"], None);
    fail(list.env("BACKUP_VERIFY_KEYS", gone), "SIGNATURE", 47);
}
