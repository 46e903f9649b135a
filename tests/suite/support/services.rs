//! Where the services of this run are, as scripts/services.sh says.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pgstow::settings::Postgres;

/// The PostgreSQL majors that have a server and programs.
pub const MAJORS: [u32; 4] = [15, 16, 17, 18];

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests through `make test`"))
}

/// Superuser URL of a major's server, database `postgres`.
pub fn postgres_url(major: u32) -> String {
    variable(&format!("PGSTOW_TEST_PG{major}_URL"))
}

/// The folder with a major's programs.
pub fn postgres_bin(major: u32) -> PathBuf {
    variable(&format!("PGSTOW_TEST_PG_BIN_{major}")).into()
}

/// The authority that signed the servers' certificates, for `sslmode=verify-full`.
/// As a backup of that major's server is set up.
pub fn postgres_settings(major: u32) -> Postgres {
    Postgres {
        bin: Some(vec![postgres_bin(major)]),
        path: Vec::new(),
        dump_major: None,
        lock_wait: Duration::from_secs(20),
        stall: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(10),
        temp: std::env::temp_dir(),
        child_env: vec![("PATH".into(), std::env::var("PATH").unwrap())],
        client_walls: None,
    }
}

pub fn postgres_ca() -> PathBuf {
    variable("PGSTOW_TEST_PG_CA").into()
}

/// moto's server: Secrets Manager, SNS, SQS, STS.
pub fn aws_endpoint() -> String {
    variable("PGSTOW_TEST_AWS_ENDPOINT")
}

/// The AWS command line.
pub fn aws_cli() -> PathBuf {
    variable("PGSTOW_TEST_AWSCLI").into()
}

/// AWS's Lambda Runtime Interface Emulator.
pub fn runtime_emulator() -> PathBuf {
    variable("PGSTOW_TEST_RIE").into()
}

/// SeaweedFS.
pub struct S3 {
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
}

pub const REGION: &str = "us-east-1";

pub fn s3() -> S3 {
    S3 {
        endpoint: variable("PGSTOW_TEST_S3_ENDPOINT"),
        access_key: variable("PGSTOW_TEST_S3_ACCESS_KEY"),
        secret_key: variable("PGSTOW_TEST_S3_SECRET_KEY"),
    }
}

/// The same server, with a key that may read and list and nothing else.
pub fn s3_reader() -> S3 {
    S3 {
        access_key: variable("PGSTOW_TEST_S3_READER_ACCESS_KEY"),
        secret_key: variable("PGSTOW_TEST_S3_READER_SECRET_KEY"),
        ..s3()
    }
}

impl S3 {
    /// What an AWS SDK needs to find this server.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL_S3", self.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
            ("AWS_REGION", REGION.to_owned()),
        ]
    }
}

/// Lets `command` use SeaweedFS as S3 and moto for everything else. moto takes any credentials.
pub fn cloud(command: &mut Command) -> &mut Command {
    command.env("AWS_ENDPOINT_URL", aws_endpoint()).envs(s3().environment())
}
