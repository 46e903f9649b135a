mod each;
mod found;
mod metrics;
mod older_names;
mod source;
mod unused;

use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::*;
use crate::error::Code;
use crate::repository::retention::Tier;
use crate::settings::{
    Auth, Checksums, Compression, CredentialSource, Encryption, GZIP_LEVEL, Policy, Retention, StoreUrl, ZSTD_LEVEL,
};

/// A working directory with the files that a test needs.
struct Place {
    folder: tempfile::TempDir,
    input: Input,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let input = Input {
            working_dir: folder.path().to_owned(),
            cpus: 3,
            memory: None,
            ..Input::default()
        };
        Self { folder, input }
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn env_file(self, text: &str) -> Self {
        self.file(".env", text)
    }

    /// An env file that the user has named, so that all its settings count.
    fn named_env_file(mut self, text: &str) -> Self {
        self.input.env_file = Some("named.env".into());
        self.file("named.env", text)
    }

    fn toml(mut self, text: &str) -> Self {
        self.input.config_file = Some("pgstow.toml".into());
        self.file("pgstow.toml", text)
    }

    fn env(mut self, pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.input.env.extend(pairs);
        self
    }

    fn flag(mut self, variable: &'static str, value: &str) -> Self {
        self.input.flags.entry(variable).or_default().push(value.to_owned());
        self
    }

    fn in_lambda(mut self) -> Self {
        self.input.in_lambda = true;
        self
    }

    #[track_caller]
    fn load(&self) -> Settings {
        Settings::load(&self.input).unwrap()
    }

    #[track_caller]
    fn refused(&self, parts: &[&str]) -> String {
        let error = Settings::load(&self.input).unwrap_err();
        assert_eq!(error.code(), Code::Config);
        let message = error.message();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        message
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn env(pairs: &[(&str, &str)]) -> Place {
    Place::new().env(pairs)
}

fn s3_store(bucket: &str) -> StoreUrl {
    StoreUrl::S3 {
        bucket: bucket.into(),
        prefix: String::new(),
    }
}

#[track_caller]
fn noted(settings: &Settings, part: &str) {
    assert!(
        settings.notes.iter().any(|note| note.contains(part)),
        "{:?}",
        settings.notes
    );
}

fn direct(settings: &Settings) -> &crate::postgres::ConnectionInfo {
    match settings.source() {
        CredentialSource::Direct(info) => info,
        other => panic!("{other:?}"),
    }
}

fn password(settings: &Settings) -> Option<&str> {
    direct(settings).password.as_ref().map(ExposeSecret::expose_secret)
}

#[test]
fn the_older_systems_switch_of_compression_is_understood() {
    let level = ("BACKUP_COMPRESSION_LEVEL", "9");
    let with = |pairs: &[(&str, &str)]| env(pairs).load().compression;
    assert_eq!(with(&[("BACKUP_COMPRESSION", "true")]), Compression::Auto);
    assert_eq!(with(&[("BACKUP_COMPRESSION", "true"), level]), Compression::Gzip(9));
    let settings = env(&[("BACKUP_COMPRESSION", "true"), level]).load();
    noted(
        &settings,
        "BACKUP_COMPRESSION from the environment with BACKUP_COMPRESSION_LEVEL from the environment",
    );
    assert!(!settings.notes.concat().contains("alone"), "{:?}", settings.notes);
    let none = [("BACKUP_COMPRESSION", "true"), ("BACKUP_COMPRESSION_LEVEL", "0")];
    assert_eq!(with(&none), Compression::None);
    noted(
        &env(&[level]).load(),
        "BACKUP_COMPRESSION_LEVEL from the environment alone means gzip",
    );
    assert_eq!(with(&[("BACKUP_COMPRESSION", "false")]), Compression::None);
    assert_eq!(with(&[("BACKUP_COMPRESSION", "False"), level]), Compression::None);
}

#[test]
fn an_implicit_env_file_that_cannot_be_opened_is_passed_over_with_a_warning() {
    let place = env(&[("BACKUP_STORE", "/srv/backups")]);
    let path = place.input.working_dir.join(".env");
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let settings = place.load();
    assert!(settings.warnings[0].contains("was not read"), "{:?}", settings.warnings);
}

#[test]
fn with_nothing_set_everything_has_a_default() {
    let place = Place::new();
    let settings = place.load();
    assert!(matches!(settings.source(), CredentialSource::None));
    assert_eq!(settings.stores, [StoreUrl::Folder(place.path("backups"))]);
    noted(&settings, "./backups");
    assert_eq!(settings.retention, Retention::of(Policy::Days(30)));
    assert_eq!(settings.compression, Compression::Auto);
    assert_eq!(settings.format, Format::Custom);
    assert_eq!((settings.jobs, settings.threads), (1, 3));
    assert_eq!((settings.s3.max_parts, settings.s3.part_size), (10_000, 8 << 20));
    assert_eq!(settings.s3.encryption, Encryption::Bucket);
    assert_eq!(settings.postgres.stall, Duration::from_secs(300));
    assert_eq!(settings.postgres.lock_wait, Duration::from_secs(60));
    assert_eq!(settings.lease, Duration::from_secs(120));
    assert_eq!(
        (settings.log.format, settings.log.filter.as_str()),
        (LogFormat::Text, "warn")
    );
}

#[test]
fn a_stronger_layer_wins_over_a_weaker_one() {
    let mut place = Place::new()
        .toml("retention = 1\ncompress = 'zstd:1'\nformat = 'plain'\nthreads = 4\n")
        .env_file("BACKUP_RETENTION=2d\nBACKUP_COMPRESSION=zstd:2\nBACKUP_FORMAT=custom\n")
        .env(&[("BACKUP_RETENTION", "3d"), ("BACKUP_COMPRESSION", "zstd:3")])
        .flag("BACKUP_RETENTION", "4d");
    let settings = place.load();
    assert_eq!(settings.retention.policy, Policy::Days(4));
    assert_eq!(settings.compression, Compression::Zstd(3));
    assert_eq!(settings.format, Format::Custom);
    assert_eq!(settings.threads, 4);
    place.input.flags.clear();
    assert_eq!(place.load().retention.policy, Policy::Days(3));
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let place = env(&[("BACKUP_RETENTION", ""), ("BACKUP_STORE", "  ")]).env_file("BACKUP_RETENTION=5d\n");
    assert_eq!(place.load().retention.policy, Policy::Days(5));
}

#[test]
fn all_problems_are_told_at_once_with_name_and_origin_and_without_secrets() {
    let place = Place::new()
        .toml("threads = 0\nretenton = '3d'\n")
        .env_file("BACKUP_RETENTION=30x\nDATABASE_URL=postgres://u:hunter2@h:99999/db\n")
        .env(&[("BACKUP_S3_PART_SIZE", "1MiB")])
        .flag("BACKUP_FORMAT", "tar");
    let message = place.refused(&[
        "6 settings are wrong",
        "BACKUP_RETENTION from .env: \"30x\"",
        "DATABASE_URL from .env: ",
        "BACKUP_S3_PART_SIZE from the environment: ",
        "--format: \"tar\" is not custom or plain",
        "`threads` in pgstow.toml: ",
        "`retenton` in pgstow.toml is not a setting (did you mean `retention`?)",
    ]);
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let mut place = Place::new();
    place.input.env_file = Some("missing.env".into());
    place.input.config_file = Some("missing.toml".into());
    place.refused(&["--env-file: ", "missing.env", "--config: ", "missing.toml"]);
    Place::new().env_file("A=1\nhunter2\n").refused(&["line 2 of .env"]);
    let message = Place::new()
        .toml("store = './b'\n[db]\npassword = hunter2\n")
        .refused(&["line 3 of pgstow.toml"]);
    assert!(!message.contains("hunter2"), "{message}");
    Place::new()
        .toml("jobs = 1.5")
        .refused(&["`jobs` in pgstow.toml: a float does not fit here"]);
}

#[test]
fn a_folder_called_env_is_no_env_file() {
    let place = Place::new();
    std::fs::create_dir(place.path(".env")).unwrap();
    place.load();
}

#[test]
fn the_environment_can_name_the_files() {
    let place = env(&[("BACKUP_CONFIG", "c.toml"), ("BACKUP_ENV_FILE", "e")])
        .file(
            "c.toml",
            "store = ['s3://one-bucket', '/copy']\n[s3]\npart_size = '64MiB'\nsse = 'AES256'\n",
        )
        .file("e", "BACKUP_KEEP_LAST=3");
    let settings = place.load();
    assert_eq!(
        settings.stores,
        [s3_store("one-bucket"), StoreUrl::Folder("/copy".into())]
    );
    assert_eq!(settings.s3.part_size, 64 << 20);
    assert_eq!(settings.s3.encryption, Encryption::SseS3);
    assert_eq!(settings.retention.keep_last, 3);
}

#[test]
fn a_misspelt_variable_is_warned_of() {
    let settings = env(&[("BACKUP_RETENTON", "1d"), ("BACKUP_ALLOW_RESTORE", "true")])
        .env_file("AWS_PROFILE=prod\n")
        .load();
    assert_eq!(
        settings.warnings,
        [
            "AWS_PROFILE from .env was ignored: set it in the environment for the AWS SDK to see it",
            "not settings of pgstow, and so ignored: BACKUP_RETENTON from the environment (did you mean \
             BACKUP_RETENTION?)"
        ]
    );
    noted(&settings, "AWS_PROFILE from .env was ignored");
}

#[test]
fn stores_are_separated_by_spaces_in_a_variable_and_whole_in_a_flag() {
    let place = env(&[("BACKUP_STORE", "s3://shop-backups  ./copy")]);
    assert_eq!(
        place.load().stores,
        [s3_store("shop-backups"), StoreUrl::Folder(place.path("copy"))]
    );
    let place = place
        .flag("BACKUP_STORE", "/mnt/my disk")
        .flag("BACKUP_STORE", "s3://other");
    assert_eq!(
        place.load().stores,
        [StoreUrl::Folder("/mnt/my disk".into()), s3_store("other")]
    );
}

#[test]
fn wrong_stores_are_refused() {
    env(&[("BACKUP_STORE", "sftp://u:hunter2@h/p")]).refused(&["SFTP stores are not in this version"]);
    env(&[("BACKUP_STORE", "./a ./a")]).refused(&["twice"]);
    Place::new()
        .flag("BACKUP_STORE", "")
        .refused(&["--store: the store is empty"]);
}

#[test]
fn a_lambda_function_must_name_its_store_and_logs_json() {
    Place::new().in_lambda().refused(&["BACKUP_STORE is not set"]);
    let settings = env(&[("BACKUP_STORE", "s3://shop")]).in_lambda().load();
    assert_eq!(
        (settings.log.format, settings.log.filter.as_str()),
        (LogFormat::Json, "info")
    );
}

#[test]
fn two_retentions_conflict_in_one_layer_only() {
    env(&[("BACKUP_RETENTION", "30d"), ("BACKUP_RETENTION_DAYS", "7")])
        .refused(&["BACKUP_RETENTION from the environment and BACKUP_RETENTION_DAYS from the environment"]);
    let policy = |place: Place| place.load().retention.policy;
    assert_eq!(
        policy(env(&[("BACKUP_RETENTION", "7d"), ("BACKUP_RETENTION_DAYS", "7")])),
        Policy::Days(7)
    );
    let place = env(&[("BACKUP_RETENTION_DAYS", "7")]).env_file("BACKUP_RETENTION=30d");
    assert_eq!(policy(place), Policy::Days(7));
    let place = env(&[("BACKUP_RETENTION", "daily=2")]).env_file("BACKUP_RETENTION_DAYS=7");
    assert_eq!(policy(place), Policy::Tiers(vec![(Tier::Daily, 2)]));
    env(&[("BACKUP_KEEP_LAST", "0")]).refused(&["BACKUP_KEEP_LAST"]);
}

#[test]
fn full_backups_must_last_as_long_as_the_increments_that_follow_them() {
    let pitr = |pairs: &[(&str, &str)]| env(pairs).load().retention.pitr;
    let hours = Duration::from_hours;
    assert_eq!(pitr(&[]), hours(7 * 24));
    assert_eq!(pitr(&[("BACKUP_PITR", "36h")]), hours(36));
    assert_eq!(pitr(&[("BACKUP_PITR", "28d")]), hours(28 * 24));
    env(&[("BACKUP_PITR", "29d")]).refused(&["BACKUP_PITR", "30 days", "31", "--pitr less"]);
    env(&[("BACKUP_PITR", "7d"), ("BACKUP_RETENTION", "daily=7,weekly=4")]).refused(&["7 days", "kept for 9"]);
    // What the user did not ask for gives way.
    assert_eq!(pitr(&[("BACKUP_RETENTION", "daily=7,weekly=4")]), hours(5 * 24));
    assert_eq!(pitr(&[("BACKUP_RETENTION", "1d")]), hours(1));
    assert_eq!(env(&[]).load().incremental_max_age, hours(2));
}

#[test]
fn compression_and_its_level_come_together() {
    let read = |pairs: &[(&str, &str)]| env(pairs).load().compression;
    let spec = |spec| ("BACKUP_COMPRESSION", spec);
    let level = |level| ("BACKUP_COMPRESSION_LEVEL", level);
    assert_eq!(read(&[spec("zstd")]), Compression::Zstd(ZSTD_LEVEL));
    assert_eq!(read(&[spec("gzip")]), Compression::Gzip(GZIP_LEVEL));
    assert_eq!(read(&[spec("zstd"), level("19")]), Compression::Zstd(19));
    assert_eq!(read(&[spec("gzip:7"), level("7")]), Compression::Gzip(7));
    assert_eq!(read(&[level("9")]), Compression::Gzip(9));
    assert_eq!(read(&[level("0")]), Compression::None);
    env(&[spec("gzip"), level("12")]).refused(&["BACKUP_COMPRESSION ", "BACKUP_COMPRESSION_LEVEL", "1 to 9"]);
    env(&[spec("zstd:3"), level("4")]).refused(&["in conflict", "different levels"]);
    env(&[spec("none"), level("4")]).refused(&["none has no level"]);
    env(&[spec("auto"), level("4")]).refused(&["auto has no level"]);
    env(&[level("12")]).refused(&["BACKUP_COMPRESSION_LEVEL from the environment: the gzip level"]);
    let place = |flag| env(&[level("9")]).flag("BACKUP_COMPRESSION", flag).load().compression;
    assert_eq!(place("zstd:3"), Compression::Zstd(3));
    assert_eq!(place("zstd"), Compression::Zstd(9));
    assert_eq!(place("none"), Compression::None);
    let place = env(&[level("8")]).env_file("BACKUP_COMPRESSION=auto");
    assert_eq!(place.load().compression, Compression::Gzip(8));
}

#[test]
fn the_wait_for_a_lock_stays_below_the_stall_limit() {
    let wait = |seconds| ("BACKUP_LOCK_WAIT_SECONDS", seconds);
    let stall = |seconds| ("BACKUP_STALL_SECONDS", seconds);
    let limits = |pairs: &[(&str, &str)]| {
        let settings = env(pairs).load();
        assert!(
            settings.notes.iter().any(|note| note.contains("lock")),
            "{:?}",
            settings.notes
        );
        (
            settings.postgres.lock_wait.as_millis(),
            settings.postgres.stall.as_millis(),
        )
    };
    env(&[wait("60"), stall("30")]).refused(&["BACKUP_LOCK_WAIT_SECONDS", "BACKUP_STALL_SECONDS", "in conflict"]);
    assert_eq!(limits(&[wait("600")]), (600_000, 660_000));
    assert_eq!(limits(&[stall("1")]), (500, 1_000));
}

#[test]
fn jobs_are_for_the_custom_format_and_for_those_in_a_hurry() {
    noted(
        &env(&[("BACKUP_JOBS", "4"), ("BACKUP_FORMAT", "plain")]).load(),
        "one stream",
    );
    let nice = [("BACKUP_NICE", "true"), ("BACKUP_JOBS", "2")];
    env(&nice).refused(&["BACKUP_NICE", "BACKUP_JOBS"]);
    let alone = env(&[("BACKUP_NICE", "true"), ("BACKUP_NICE_MAX_LAG", "3")]).load();
    let limits = alone.nice.unwrap();
    assert_eq!((limits.max_lag.as_secs(), limits.max_sessions), (3, 20));
    assert_eq!(env(&[]).load().nice, None);
}

#[test]
fn rate_and_memory_are_sizes_that_can_do_something() {
    let rate = |text| env(&[("BACKUP_MAX_RATE", text)]).load().max_rate;
    assert_eq!(rate("20M"), Some(20 << 20));
    env(&[("BACKUP_MAX_RATE", "100")]).refused(&["BACKUP_MAX_RATE"]);
    env(&[("BACKUP_MEMORY", "1M")]).refused(&["BACKUP_MEMORY", "MiB"]);
    let bucket = [("BACKUP_STORE", "s3://one-bucket"), ("BACKUP_JOBS", "2")];
    let usual = env(&bucket).load();
    assert_eq!(usual.s3.memory, usual.memory.parts);
    assert!(usual.memory.parts >= 2 * usual.s3.part_size && usual.memory.read_ahead > 0);
    let more = env(&[bucket[0], bucket[1], ("BACKUP_MEMORY", "1G")]).load();
    assert!(more.s3.memory > usual.s3.memory);
    let less = env(&[bucket[0], ("BACKUP_MEMORY", "48M"), ("BACKUP_THREADS", "8")]).load();
    assert!(less.threads < 8, "fewer threads fit");
    noted(&less, "threads");
}

#[test]
fn encryption_names_a_method_and_a_key() {
    let read = |pairs: &[(&str, &str)]| env(pairs).load().s3.encryption;
    let sse = |method| ("BACKUP_S3_SSE", method);
    let key = ("BACKUP_S3_KMS_KEY_ID", "alias/backups");
    let with_key = Encryption::SseKms {
        key_id: Some("alias/backups".into()),
    };
    assert_eq!(read(&[sse("aws:kms")]), Encryption::SseKms { key_id: None });
    assert_eq!(read(&[sse("aws:kms"), key]), with_key);
    assert_eq!(read(&[key]), with_key);
    env(&[sse("AES256"), key]).refused(&["BACKUP_S3_SSE", "BACKUP_S3_KMS_KEY_ID", "in conflict"]);
}

#[test]
fn checksums_may_be_reduced_by_our_name_and_by_the_sdks() {
    let read = |pairs: &[(&str, &str)]| env(pairs).load().s3.checksums;
    assert_eq!(read(&[]), Checksums::Always);
    assert_eq!(
        read(&[("BACKUP_S3_CHECKSUMS", "when_required")]),
        Checksums::WhenRequired
    );
    assert_eq!(
        read(&[("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_REQUIRED")]),
        Checksums::WhenRequired
    );
    let both = [
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required"),
        ("BACKUP_S3_CHECKSUMS", "always"),
    ];
    assert_eq!(read(&both), Checksums::Always);
}

#[test]
fn credentials_are_taken_from_files_and_left_to_the_sdk_in_the_environment() {
    let text =
        "AWS_ACCESS_KEY_ID=AKIA1\nAWS_SECRET_ACCESS_KEY=hunter2\nAWS_SESSION_TOKEN=t0ken\nAWS_REGION=eu-west-1\n";
    let settings = Place::new().env_file(text).load();
    assert_eq!(settings.aws.access_key_id.as_deref(), Some("AKIA1"));
    assert_eq!(
        settings.aws.secret_access_key.as_ref().unwrap().expose_secret(),
        "hunter2"
    );
    assert!(settings.aws.session_token.is_some());
    assert_eq!(settings.aws.region.as_deref(), Some("eu-west-1"));
    let shown = format!("{settings:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("t0ken"), "{shown}");

    let place = env(&[
        ("AWS_ACCESS_KEY_ID", "AKIA2"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_DEFAULT_REGION", "us-east-2"),
    ]);
    let settings = place.env_file("AWS_SESSION_TOKEN=stale").load();
    assert!(settings.aws.access_key_id.is_none() && settings.aws.session_token.is_none());
    assert_eq!(settings.aws.region.as_deref(), Some("us-east-2"));

    Place::new()
        .env_file("AWS_ACCESS_KEY_ID=AKIA1")
        .refused(&["AWS_SECRET_ACCESS_KEY is not set"]);
    env(&[("AWS_ACCESS_KEY_ID", "AKIA1")]).load();
    env(&[("AWS_ACCESS_KEY_ID", "AKIA1")])
        .env_file("AWS_SECRET_ACCESS_KEY=hunter2")
        .refused(&["AWS_ACCESS_KEY_ID from the environment and AWS_SECRET_ACCESS_KEY from .env"]);
}

#[test]
fn endpoints_and_topics_are_checked() {
    let settings = env(&[("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000/")]).load();
    assert_eq!(settings.aws.endpoint_s3.as_deref(), Some("http://127.0.0.1:9000"));
    env(&[("AWS_ENDPOINT_URL", "127.0.0.1:9000")]).refused(&["https:// or http://"]);
    let message = env(&[("AWS_ENDPOINT_URL_SNS", "https://k:hunter2@h")]).refused(&["no credentials"]);
    assert!(!message.contains("hunter2"));
    let topic = "arn:aws:sns:eu-central-1:000000000000:backups";
    assert_eq!(
        env(&[("BACKUP_SNS_TOPIC_ARN", topic)]).load().channels,
        [Channel::Sns { arn: topic.into() }]
    );
    env(&[("BACKUP_SNS_TOPIC_ARN", "backups")]).refused(&["expected the topic's ARN"]);
}

#[test]
fn children_inherit_four_variables_and_no_credential() {
    let settings = env(&[
        ("PATH", "/a:/b"),
        ("HOME", "/h"),
        ("TZ", "UTC"),
        ("PGPASSWORD", "x"),
        ("TMPDIR", "/t"),
    ])
    .load();
    let names: Vec<&str> = settings
        .postgres
        .child_env
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["PATH", "HOME", "TZ"]);
    assert_eq!(settings.postgres.path, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!(settings.postgres.temp, PathBuf::from("/t"));
    let place = env(&[("BACKUP_PG_BIN", "/opt/pg/bin:pg"), ("BACKUP_PG_DUMP_MAJOR", "17")]);
    let postgres = place.load().postgres;
    assert_eq!(postgres.bin, Some(vec!["/opt/pg/bin".into(), place.path("pg")]));
    assert_eq!(postgres.dump_major, Some(17));
}

#[test]
fn the_log_filter_is_checked_at_once() {
    assert_eq!(env(&[("RUST_LOG", "debug")]).load().log.filter, "debug");
    // A wrong value of these stops no command: the defaults show enough.
    let settings = env(&[("RUST_LOG", "pgstow=loud"), ("LOG_FORMAT", "xml")]).load();
    assert_eq!(
        (settings.log.filter.as_str(), settings.log.format),
        ("warn", LogFormat::Text)
    );
    for variable in ["RUST_LOG", "LOG_FORMAT"] {
        let told = settings.warnings.iter().filter(|warning| warning.contains(variable));
        assert_eq!(told.count(), 1, "{variable}: {:?}", settings.warnings);
    }
    let place = env(&[("RUST_LOG", "pgstow=loud"), ("BACKUP_JOBS", "none")]);
    let told = place.refused(&["BACKUP_JOBS", "RUST_LOG"]);
    assert!(!told.contains("settings are wrong"), "{told}");
}
