//! Stock minisign and pgstow understand each other, both ways.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::place::{SIGNATURE, Signed, keygen, line, public, source};
use crate::support::program::{pgstow, program, run, succeed, succeed_with_input};
use crate::support::wreck::{Site, fail};

#[test]
fn stock_minisign_verifies_manifest_and_result_and_reads_the_key() {
    for options in [&[][..], &["--format", "plain"]] {
        let signed = Signed::up(options);
        let key = public(&signed.key);
        let told = succeed(&mut signed.minisign(&["-V", "-m", "manifest.json", "-p", key.to_str().unwrap()])).text();
        let comment = format!("Trusted comment: pgstow manifest.json of {}, signed 20", signed.id());
        assert!(told.contains("verified") && told.contains(&comment), "{told}");
        assert_eq!(signed.report["signed_by"].as_str().unwrap().len(), 16);
        assert!(
            fs::read_to_string(&key)
                .unwrap()
                .contains(signed.report["signed_by"].as_str().unwrap())
        );

        succeed(signed.command(&["verify", "latest"]).arg("--sign-key").arg(&signed.key));
        let of_result = ["-V", "-m", "verification.json", "-P", &line(&signed.key)];
        let told = succeed(&mut signed.minisign(&of_result)).text();
        assert!(
            told.contains(&format!("pgstow verification.json of {}", signed.id())),
            "{told}"
        );

        // Without the keys nothing is asked, and with them all of it works.
        signed.accepted(key.to_str().unwrap());
        let mut list = signed.trusting("", &["list"]);
        assert_eq!(succeed(&mut list).json()["backups"][0].get("signature"), None);
    }
}

#[test]
fn what_stock_minisign_has_signed_is_accepted_prehashed_or_not() {
    let mut signed = Signed::up(&[]);
    let stock = signed.site.path().join("stock");
    let (secret, public_key) = (stock.to_str().unwrap(), public(&stock));
    succeed(program("minisign").args(["-G", "-W", "-s", secret, "-p", public_key.to_str().unwrap()]));
    for sign in [&["-S"][..], &["-S", "-l"]] {
        let mut minisign = signed.minisign(sign);
        succeed(minisign.args(["-s", secret, "-m", "manifest.json", "-t", "made by hand"]));
        signed.accepted(&line(&stock));
        fail(&mut signed.command(&["verify", "latest"]), "SIGNATURE", 47);
    }
    // And such a key signs here.
    let old = signed.key.clone();
    signed.key = stock;
    signed.another();
    signed.accepted(public_key.to_str().unwrap());
    let newest = signed.id().to_owned();
    let failure = fail(
        &mut signed.trusting(&line(&old), &["restore", "latest", "--target", "postgres://h/d"]),
        "SIGNATURE",
        47,
    );
    assert!(failure.message.contains(&newest), "{}", failure.message);
}

#[test]
fn keys_with_passwords_sign_made_by_either() {
    let (source, site) = (source(), Site::new());
    let ours = site.path().join("ours");
    succeed(
        pgstow()
            .arg("keygen")
            .arg(&ours)
            .env("BACKUP_SIGN_KEY_PASSWORD", "correct horse"),
    );
    let mut minisign = program("minisign");
    let file = site.path().join("text");
    fs::write(&file, "some text").unwrap();
    minisign.args(["-S", "-s", ours.to_str().unwrap(), "-m", file.to_str().unwrap()]);
    succeed_with_input(&mut minisign, b"correct horse\n");
    succeed(program("minisign").args(["-V", "-P", &line(&ours), "-m", file.to_str().unwrap()]));

    let stock = site.path().join("stock");
    let mut minisign = program("minisign");
    minisign.args([
        "-G",
        "-s",
        stock.to_str().unwrap(),
        "-p",
        public(&stock).to_str().unwrap(),
    ]);
    succeed_with_input(&mut minisign, b"correct horse\ncorrect horse\n");
    let password = site.path().join("password");
    fs::write(&password, "correct horse\n").unwrap();
    for key in [&ours, &stock] {
        let mut backup = site.backup(&source.url());
        backup
            .env("BACKUP_SIGN_KEY", key)
            .env("BACKUP_SIGN_KEY_PASSWORD_FILE", &password);
        let report = succeed(&mut backup).json();
        let folder = site.store().join(report["id"].as_str().unwrap());
        let mut verify = program("minisign");
        succeed(
            verify
                .args(["-V", "-P", &line(key), "-m", "manifest.json"])
                .current_dir(folder),
        );
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    // Before anything is begun.
    let before = crate::support::wreck::tree(&site.store());
    for password in [None, Some("battery staple")] {
        let mut backup = site.backup(&source.url());
        backup.env("BACKUP_SIGN_KEY", &ours);
        if let Some(password) = password {
            backup.env("BACKUP_SIGN_KEY_PASSWORD", password);
        }
        let failure = fail(&mut backup, "CONFIG", 2);
        assert!(failure.message.contains("password") && failure.hint.contains("BACKUP_SIGN_KEY_PASSWORD"));
        assert!(!failure.stderr.contains("battery"), "{}", failure.stderr);
    }
    assert_eq!(crate::support::wreck::tree(&site.store()), before);
}

#[test]
fn keygen_replaces_nothing_and_what_is_no_key_is_named() {
    let site = Site::new();
    let key = keygen(&site, "key");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(&public(&key))), (0o600, 0o644));
    let before = fs::read(&key).unwrap();
    let failure = fail(pgstow().args(["keygen", "--json"]).arg(&key), "CONFIG", 2);
    assert!(failure.message.contains("is there already"), "{}", failure.message);
    fs::remove_file(&key).unwrap();
    fail(pgstow().args(["keygen", "--json"]).arg(&key), "CONFIG", 2);
    assert!(!key.exists());
    fs::write(&key, before).unwrap();

    let list = |variable: &str, value: &str| {
        let mut command = pgstow();
        command
            .args(["list", "--json", "--store"])
            .arg(site.store())
            .env(variable, value);
        command.current_dir(site.path());
        command
    };
    for (value, why) in [
        ("no-such-file", "cannot be read"),
        ("arn:aws:kms:eu-central-1:1:topic/x", "is not the ARN of a KMS key"),
        ("tmp", "is not a file"),
        ("key", "not a complete public key"),
    ] {
        let failure = fail(&mut list("BACKUP_VERIFY_KEYS", value), "CONFIG", 2);
        assert!(failure.message.contains(why), "{value}: {}", failure.message);
    }
    // What signs refuses it; what does not sign says so and goes on.
    let mut backup = site.backup(&source().url());
    let failure = fail(backup.env("BACKUP_SIGN_KEY", line(&key)), "CONFIG", 2);
    assert!(failure.message.contains("public key"), "{}", failure.message);
    let listed = run(&mut list("BACKUP_SIGN_KEY", &line(&key)));
    assert_ne!(listed.status.code(), Some(2), "{}", listed.stderr);
    assert!(listed.stderr.contains("public key"), "{}", listed.stderr);
}

#[test]
fn doctor_tries_the_keys() {
    let site = Site::new();
    let (key, other) = (keygen(&site, "key"), keygen(&site, "other"));
    let checks = |verify: &str, key: &std::path::Path| -> Value {
        let mut doctor = pgstow();
        doctor.args(["doctor", "--json", "--store"]).arg(site.path());
        doctor.env("BACKUP_SIGN_KEY", key).env("BACKUP_VERIFY_KEYS", verify);
        let report = run(doctor.current_dir(site.path())).json();
        let checks = report["checks"].as_array().unwrap().iter();
        checks
            .filter(|check| check["name"].as_str().unwrap().ends_with(" key") || check["name"] == "verify keys")
            .map(|check| {
                format!(
                    "{} {} {}",
                    check["name"].as_str().unwrap(),
                    check["state"],
                    check["detail"]
                )
            })
            .collect::<Vec<_>>()
            .join("\n")
            .into()
    };
    let text = checks(&line(&key), &key).to_string();
    assert!(
        text.matches("\\\"ok\\\"").count() == 2 && text.contains(&line(&key)),
        "{text}"
    );
    let text = checks(&line(&other), &key).to_string();
    assert!(text.contains("is not among them"), "{text}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(
        checks(&line(&key), &key)
            .to_string()
            .contains("other users of this machine may read it")
    );
    fs::write(&other, "nonsense").unwrap();
    assert!(
        checks(&line(&key), &other)
            .to_string()
            .contains("not a secret key in minisign's format")
    );
}

/// Nothing of it is printed but the signature.
#[test]
fn the_secret_key_is_nowhere_but_in_its_file() {
    let signed = Signed::up(&[]);
    let secret = fs::read_to_string(&signed.key).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    assert!(!signed.report.to_string().contains(secret));
    for file in ["manifest.json", SIGNATURE] {
        assert!(!String::from_utf8_lossy(&signed.read(file)).contains(secret));
    }
    let status = signed.json(&["status"]).to_string();
    assert!(
        !status.contains(secret) && status.contains("\"verify_keys\":1"),
        "{status}"
    );
}

/// A secret in the place of a file's name is told from one, and in no output.
#[test]
fn a_secret_key_in_the_place_of_its_name_is_shown_nowhere() {
    let site = Site::new();
    let (plain, stock) = (keygen(&site, "plain"), site.path().join("stock"));
    let hidden = site.path().join("hidden");
    succeed(
        pgstow()
            .arg("keygen")
            .arg(&hidden)
            .env("BACKUP_SIGN_KEY_PASSWORD", "correct horse"),
    );
    let mut minisign = program("minisign");
    succeed(
        minisign
            .args(["-G", "-W", "-s", stock.to_str().unwrap(), "-p"])
            .arg(public(&stock)),
    );
    let mut secrets = vec![(
        "MC4CAQAwBQYDK2VwBCIEIFQ0mNbpBhCdoAIS9PhpL2ZyxpDwYhPoJ1BvJ6jO8q9n".to_owned(),
        "FQ0mNbpBhCdoAIS9Php".to_owned(),
    )];
    for file in [&plain, &hidden, &stock] {
        let text = fs::read_to_string(file).unwrap();
        let line = text.lines().nth(1).unwrap();
        let part = line[100..140].to_owned();
        let values = [
            line.to_owned(),
            text.clone(),
            text.trim_end().replace('\n', " "),
            text.trim_end().replace('\n', "\\n"),
            line[..line.len() - 9].to_owned(),
            format!("./{line}"),
        ];
        secrets.extend(values.map(|value| (value, part.clone())));
    }
    for (secret, part) in &secrets {
        assert!(secret.contains(part), "{secret}");
        for variable in ["BACKUP_SIGN_KEY", "BACKUP_VERIFY_KEYS"] {
            for args in [
                &["backup"][..],
                &["list"],
                &["doctor"],
                &["verify", "latest"],
                &["status"],
            ] {
                for output in [&[][..], &["--json"]] {
                    let mut command = pgstow();
                    command.args(args).args(output).arg("--store").arg(site.store());
                    command.env(variable, secret).current_dir(site.path());
                    let ran = run(&mut command);
                    assert!(!ran.status.success(), "{variable} {args:?}");
                    let told = format!("{}{}", ran.text(), ran.stderr);
                    assert!(!told.contains(&part[..12]), "{variable} {args:?}: {told}");
                    assert!(told.contains(variable), "{variable} {args:?}: {told}");
                }
            }
        }
    }
    // Nor the password, in the place of its file's name.
    let mut backup = site.backup(&source().url());
    backup
        .env("BACKUP_SIGN_KEY", &hidden)
        .env("BACKUP_SIGN_KEY_PASSWORD_FILE", "correct horse");
    let failure = fail(&mut backup, "CONFIG", 2);
    assert!(!format!("{failure:?}").contains("horse"), "{failure:?}");
}
