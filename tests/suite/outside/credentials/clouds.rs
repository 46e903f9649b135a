//! AWS credentials, authorities, proxies and regions as AWS's own tools take them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::json;

use crate::support::database::Database;
use crate::support::moto;
use crate::support::program::pgstow;
use crate::support::role::Role;
use crate::support::services::{aws_endpoint, postgres_ca};
use crate::support::tls_front::Front;
use crate::support::wreck::{Site, fail, report};

/// A home folder with these files of AWS's.
fn home(site: &Site, config: &str, credentials: &str) -> PathBuf {
    let folder = site.path().join("home/.aws");
    fs::create_dir_all(folder.join("sso/cache")).unwrap();
    fs::write(folder.join("config"), config).unwrap();
    fs::write(folder.join("credentials"), credentials).unwrap();
    site.path().join("home")
}

fn backup(site: &Site, store: &str, secret: &str) -> Command {
    let mut command = site.backup_into("", &site.path().join(store));
    command
        .env_remove("DATABASE_URL")
        .env("BACKUP_SECRET_ID", secret)
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

#[test]
fn profiles_of_every_kind_lead_to_the_secret() {
    let (site, database) = (Site::new(), Database::fresh(18));
    database.sql("CREATE TABLE public.t AS SELECT 1 AS n");
    let (host, port) = database.address();
    let secret = moto::secret(&database.url());
    let script = site.path().join("ticket");
    fs::write(
        &script,
        "#!/bin/sh\necho '{\"Version\": 1, \"AccessKeyId\": \"AKIDPROCESS\", \"SecretAccessKey\": \"s\", \"SessionToken\": \"t\"}'\n",
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let token = site.path().join("token");
    fs::write(&token, "a.web.token").unwrap();
    let role = "arn:aws:iam::123456789012:role/backup";
    let home = home(
        &site,
        &format!(
            "[profile process]\ncredential_process = {script} --with 'a word'\n\
             [profile assume]\nrole_arn = {role}\nsource_profile = base\n\
             [profile web]\nrole_arn = {role}\nweb_identity_token_file = {token}\n\
             [profile unmounted]\nrole_arn = {role}\nweb_identity_token_file = {token}.none\n\
             [profile login]\nlogin_session = arn:aws:iam::123456789012:user/ada\n\
             [profile broken]\ncredential_process = sh -c 'echo no ticket >&2; exit 3'\n\
             [profile signed-out]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = backup\n\
             [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.example/start\n\
             [profile sso]\nsso_session = open\nsso_account_id = 123456789012\nsso_role_name = backup\n\
             [sso-session open]\nsso_region = us-east-1\nsso_start_url = https://corp.example/start\n",
            script = script.display(),
            token = token.display(),
        ),
        "[base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = s\n",
    );
    // As `aws sso login` leaves it: the file's name is the SHA-1 of the session's.
    let login = json!({"accessToken": "signed in", "expiresAt": "2099-01-01T00:00:00Z", "region": "us-east-1",
        "startUrl": "https://corp.example/start"});
    let cached = home.join(".aws/sso/cache/5fc7e38bffe00ca46add89145464a2eaf759d5c2.json");
    fs::write(cached, login.to_string()).unwrap();
    let portal = portal();
    for profile in ["process", "assume", "web", "sso"] {
        let mut command = backup(&site, profile, &secret);
        command
            .env("HOME", &home)
            .env("AWS_PROFILE", profile)
            .env("AWS_REGION", "us-east-1");
        command.env("AWS_ENDPOINT_URL_SSO", &portal);
        report(command.env("AWS_ENDPOINT_URL", aws_endpoint()));
    }
    for (profile, told) in [
        ("broken", "no ticket"),
        ("signed-out", "SSO"),
        ("missing", "`missing`"),
        ("unmounted", "token.none, which cannot be read"),
        ("login", "login_session"),
    ] {
        let mut command = backup(&site, "none", &secret);
        command
            .env("HOME", &home)
            .env("AWS_PROFILE", profile)
            .env("AWS_REGION", "us-east-1");
        let failure = fail(command.env("AWS_ENDPOINT_URL", aws_endpoint()), "SECRET", 12);
        assert!(failure.message.contains(told), "{}", failure.message);
        for debugging in ["Error {", "source:", "Some(", "(Provider", "cargo"] {
            assert!(!failure.stderr.contains(debugging), "{}", failure.stderr);
        }
    }

    let mut command = backup(&site, "none", &secret);
    let token = site.path().join("nowhere");
    command
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
        .env("AWS_ROLE_ARN", role)
        .env("AWS_REGION", "us-east-1");
    let failure = fail(command.env("AWS_ENDPOINT_URL", aws_endpoint()), "SECRET", 12);
    let told = format!("AWS_WEB_IDENTITY_TOKEN_FILE names {}", token.display());
    assert!(failure.message.contains(&told), "{}", failure.message);
    assert!(!failure.hint.contains("AWS_PROFILE"), "{}", failure.hint);

    // RDS's own secrets hold user and password alone: by a flag, with the rest in the environment. And a
    // secret's region is that of its ARN.
    let alone = json!({"username": "postgres", "password": database.password()}).to_string();
    let elsewhere = in_region("eu-west-1", &alone);
    let mut command = backup(&site, "alone", "");
    command.env_remove("BACKUP_SECRET_ID").args(["--secret-id", &elsewhere]);
    command.envs([
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_REGION", "us-east-1"),
    ]);
    command.env("AWS_ENDPOINT_URL", aws_endpoint());
    command
        .env("DB_HOST", &host)
        .env("DB_PORT", port.to_string())
        .env("DB_NAME", &database.name);
    let warnings = report(&mut command)["warnings"].to_string();
    assert!(!warnings.contains("not used"), "{warnings}");
    // What the secret says otherwise is told at once.
    let mut command = backup(&site, "whole", "");
    command.env_remove("BACKUP_SECRET_ID").args(["--secret-id", &secret]);
    command.envs([
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_REGION", "us-east-1"),
    ]);
    command.env("AWS_ENDPOINT_URL", aws_endpoint());
    command
        .env("DB_PORT", port.to_string())
        .env("DB_NAME", "another")
        .env("DB_USER", "nobody");
    let warnings = report(&mut command)["warnings"].to_string();
    let told = "DB_NAME from the environment, DB_USER from the environment not used";
    assert!(warnings.contains(told), "{warnings}");
    assert_eq!(warnings.matches("not used").count(), 1, "{warnings}");
    // The target likewise, by a URL or by parts.
    let owner = Role::fresh(&database, "the owner's", "SUPERUSER");
    let theirs = moto::secret(&json!({"username": owner.name, "password": "the owner's"}).to_string());
    for by_url in [true, false] {
        let target = Database::fresh(18);
        let mut command = pgstow();
        command
            .args(["restore", "latest", "--json", "--store"])
            .arg(site.path().join("alone"));
        command.current_dir(site.path()).env("BACKUP_TARGET_SECRET_ID", &theirs);
        command.envs([
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
            ("AWS_REGION", "us-east-1"),
        ]);
        command.env("AWS_ENDPOINT_URL", aws_endpoint());
        if by_url {
            command.args(["--target", &format!("postgres://{host}:{port}/{}", target.name)]);
        } else {
            command
                .env("BACKUP_TARGET_HOST", &host)
                .env("BACKUP_TARGET_PORT", port.to_string());
            command.env("BACKUP_TARGET_NAME", &target.name);
        }
        report(&mut command);
        assert_eq!(target.sql("SELECT n FROM public.t"), "1");
    }
}

/// The portal of an identity center, which gives keys to who is signed in.
fn portal() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut request) = (client.unwrap(), Vec::new());
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("GET /federation/credentials?") && request.contains("role_name=backup"));
            assert!(request.contains("x-amz-sso_bearer_token: signed in"), "{request}");
            let keys = json!({"accessKeyId": "AKIDSSO", "secretAccessKey": "s", "sessionToken": "t",
                "expiration": 4_000_000_000_000_u64});
            let body = json!({"roleCredentials": keys}).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            client.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    endpoint
}

/// A secret of another region; moto takes the region from the signature.
fn in_region(region: &str, value: &str) -> String {
    let name = format!("elsewhere-{}", crate::support::database::unique_word());
    let body = json!({"Name": name, "SecretString": value, "ClientRequestToken": format!("{:0>36}", "1")});
    let signature = format!(
        "AWS4-HMAC-SHA256 Credential=test/20250101/{region}/secretsmanager/aws4_request, SignedHeaders=host, Signature=0"
    );
    let headers = [
        ("Authorization", signature.as_str()),
        ("X-Amz-Target", "secretsmanager.CreateSecret"),
        ("Content-Type", "application/x-amz-json-1.1"),
    ];
    let answer = crate::support::http::post(&aws_endpoint(), "/", &headers, &body.to_string());
    let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    answer["ARN"].as_str().unwrap().to_owned()
}

#[test]
fn authorities_and_proxies_are_those_of_awss_tools() {
    let (site, database) = (Site::new(), Database::fresh(18));
    database.sql("CREATE TABLE public.t AS SELECT 1 AS n");
    let secret = moto::secret(&database.url());
    let (front, proxy) = (Front::tls(&aws_endpoint()), Front::proxy());
    let keys = [
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_REGION", "us-east-1"),
    ];
    let by_tls = |store: &str| {
        let mut command = backup(&site, store, &secret);
        command
            .envs(keys)
            .env("AWS_ENDPOINT_URL", format!("https://localhost:{}", front.port));
        command
    };
    let failure = fail(&mut by_tls("untrusted"), "SECRET", 12);
    assert!(failure.message.contains("TLS failed"), "{}", failure.message);
    assert!(failure.hint.contains("AWS_CA_BUNDLE"), "{}", failure.hint);
    report(by_tls("variable").env("AWS_CA_BUNDLE", postgres_ca()));
    let config = format!("[profile corp]\nca_bundle = {}\n", postgres_ca().display());
    let home = home(&site, &config, "");
    let mut command = by_tls("profile");
    report(command.env("HOME", &home).env("AWS_PROFILE", "corp"));
    let failure = fail(by_tls("none").env("AWS_CA_BUNDLE", "/dev/null/none"), "CONFIG", 2);
    assert!(
        failure.message.contains("AWS_CA_BUNDLE: /dev/null/none"),
        "{}",
        failure.message
    );

    let proxied = |store: &str| {
        let mut command = by_tls(store);
        command
            .env("AWS_CA_BUNDLE", postgres_ca())
            .env("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port));
        command
    };
    report(&mut proxied("proxy"));
    assert!(proxy.connections() > 0);
    let before = proxy.connections();
    report(proxied("no proxy").env("NO_PROXY", "localhost,.example.com"));
    assert_eq!(proxy.connections(), before);
}

#[test]
fn a_proxy_that_does_not_answer_is_named_and_no_proxy_means_addresses_too() {
    let site = Site::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let list = |endpoint: &str| {
        let mut command = pgstow();
        command
            .args(["list", "--store", "s3://not-there"])
            .current_dir(site.path());
        command
            .env("AWS_ACCESS_KEY_ID", "a")
            .env("AWS_SECRET_ACCESS_KEY", "b")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", endpoint)
            .env("BACKUP_S3_RETRY_SECONDS", "1");
        for variable in ["HTTP_PROXY", "HTTPS_PROXY"] {
            command.env(variable, format!("http://ada:hunter2@{dead}"));
        }
        command
    };
    let told = |command: &mut Command| {
        let output = command.output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    for (endpoint, variable) in [
        ("http://s3.example", "HTTP_PROXY"),
        ("https://s3.example", "HTTPS_PROXY"),
    ] {
        let told = told(&mut list(endpoint));
        assert!(
            told.contains(&format!("by way of the proxy {dead} ({variable})")),
            "{told}"
        );
        assert!(told.contains("NO_PROXY") && !told.contains("hunter2"), "{told}");
    }
    let told = told(list(&aws_endpoint()).env("NO_PROXY", "*"));
    assert!(told.contains("not-there") && !told.contains("proxy"), "{told}");
}

/// Refuses the old key as expired, after which a new one was put into the file; and passes on what
/// comes with that.
fn expiring(file: &Path, code: &'static str, new: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let file = file.to_owned();
    let moto = aws_endpoint()
        .strip_prefix("http://")
        .unwrap()
        .trim_end_matches('/')
        .to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut request) = (client.unwrap(), Vec::new());
            let mut piece = [0; 4096];
            let text = loop {
                let count = client.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..count]);
                let text = String::from_utf8_lossy(&request).into_owned();
                if count == 0 || text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.ends_with('}')) {
                    break text;
                }
            };
            if text.contains("AKIDOLD") {
                let body = format!(
                    r#"{{"__type":"{code}","message":"The security token included in the request is expired"}}"#
                );
                fs::write(&file, new).unwrap();
                let head = format!(
                    "HTTP/1.1 400 X\r\nContent-Type: application/x-amz-json-1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                client.write_all((head + &body).as_bytes()).unwrap();
            } else if !text.is_empty() {
                let mut server = std::net::TcpStream::connect(&moto).unwrap();
                let text = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
                server.write_all(text.as_bytes()).unwrap();
                std::io::copy(&mut server, &mut client).unwrap();
            }
        }
    });
    endpoint
}

#[test]
fn credentials_that_have_expired_are_read_again() {
    let (site, database) = (Site::new(), Database::fresh(18));
    database.sql("CREATE TABLE public.t AS SELECT 1 AS n");
    let secret = moto::secret(&database.url());
    let home = home(
        &site,
        "",
        "[default]\naws_access_key_id = AKIDOLD\naws_secret_access_key = s\naws_session_token = old\n",
    );
    let new = "[default]\naws_access_key_id = AKIDNEW\naws_secret_access_key = s\naws_session_token = new\n";
    let old = "[default]\naws_access_key_id = AKIDOLD\naws_secret_access_key = s\naws_session_token = old\n";
    let mut command = backup(&site, "store", &secret);
    command.env("HOME", &home).env("AWS_REGION", "us-east-1");
    // A key that was rotated out may have been deleted.
    for code in [
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "InvalidAccessKeyId",
    ] {
        fs::write(home.join(".aws/credentials"), old).unwrap();
        let endpoint = expiring(&home.join(".aws/credentials"), code, new);
        report(command.env("AWS_ENDPOINT_URL", &endpoint));
    }
    // And where there are no others, it is said soon.
    fs::write(home.join(".aws/credentials"), new.replace("AKIDNEW", "AKIDOLD")).unwrap();
    let endpoint = expiring(&home.join(".aws/credentials"), "ExpiredTokenException", old);
    let failure = fail(command.env("AWS_ENDPOINT_URL", &endpoint), "SECRET", 12);
    assert!(failure.message.contains("expired"), "{}", failure.message);
}

/// What a run cannot get credentials from is named, not the service; and nothing is left running.
#[test]
fn what_gives_no_credentials_is_named() {
    let (site, database) = (Site::new(), Database::fresh(18));
    let secret = moto::secret(&database.url());
    // A number that no other test sleeps for.
    let program = format!("sleep 333.{}", std::process::id());
    let home = home(
        &site,
        &format!(
            "[profile slow]\ncredential_process = {program}; true\n\
             [profile lonely]\nsso_session = nowhere\nsso_account_id = 123456789012\nsso_role_name = backup\n"
        ),
        "",
    );
    let command = || {
        let mut command = backup(&site, "none", &secret);
        command
            .env("HOME", &home)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", aws_endpoint());
        command
    };
    let failure = fail(command().env("AWS_PROFILE", "slow"), "SECRET", 12);
    assert!(
        failure.message.contains("credential_process of the AWS profile `slow`"),
        "{}",
        failure.message
    );
    assert!(failure.hint.contains("by hand"), "{}", failure.hint);
    let found = Command::new("pgrep").args(["-f", &program]).output().unwrap();
    assert!(found.stdout.is_empty(), "{program} outlives the run");

    let failure = fail(command().env("AWS_PROFILE", "lonely"), "SECRET", 12);
    assert!(failure.message.contains("`nowhere`"), "{}", failure.message);
    assert!(failure.hint.contains("[sso-session"), "{}", failure.hint);

    let address = "http://127.0.0.1:9/v1";
    let failure = fail(
        command().env("AWS_CONTAINER_CREDENTIALS_FULL_URI", address),
        "SECRET",
        12,
    );
    let told = format!("AWS_CONTAINER_CREDENTIALS_FULL_URI names {address}");
    assert!(failure.message.contains(&told), "{}", failure.message);
    assert!(!failure.hint.contains("AWS_PROFILE"), "{}", failure.hint);
}
