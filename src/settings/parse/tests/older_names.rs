//! The older systems' names.

use super::*;

#[test]
fn an_older_systems_env_file_runs_unchanged() {
    let place = Place::new().env_file(
        "DB_HOST=localhost\nDB_PORT=5432\nDB_NAME=shop\nDB_USER=postgres\nDB_PASSWORD=pa$$#1\n\
         BACKUP_DIR=./dumps\nBACKUP_LOCAL=true\nBACKUP_RETENTION_DAYS=14\nBACKUP_COMPRESSION_LEVEL=9\n\
         BACKUP_S3=false\nBACKUP_S3_BUCKET=\nBACKUP_MINIO=true\nMINIO_END_POINT=minio\nMINIO_PORT=9000\n\
         MINIO_ACCESS_KEY=minioadmin\nMINIO_SECRET_KEY=hunter2\nMINIO_BUCKET=dumps\nBACKUP_REMOTE=false\n\
         BACKUP_REMOTE_HOST=backup.example\nBACKUP_ENCRYPT=false\nBACKUP_GPG_RECIPIENT=ops@example.com\n\
         BACKUP_EMAIL_NOTIFY=true\nBACKUP_EMAIL_TO=ops@example.com\nFULL_BACKUP_SCHEDULE=0 2 * * *\n\
         INCREMENTAL_BACKUP_SCHEDULE=0 * * * *\nCLEANUP_SCHEDULE=0 4 * * 0\n",
    );
    let settings = place.load();
    assert_eq!(password(&settings), Some("pa$$#1"));
    assert_eq!(
        settings.stores,
        [StoreUrl::Folder(place.path("dumps")), s3_store("dumps")]
    );
    assert_eq!(settings.retention.policy, Policy::Days(14));
    assert_eq!(settings.compression, Compression::Gzip(9));
    assert_eq!(settings.aws.endpoint_s3.as_deref(), Some("http://minio:9000"));
    assert_eq!(settings.aws.s3_access_key_id.as_deref(), Some("minioadmin"));
    assert!(settings.aws.access_key_id.is_none());
    assert!(
        settings.warnings[0].starts_with("BACKUP_EMAIL_NOTIFY from .env has no effect: e-mail is not in this version"),
        "{:?}",
        settings.warnings
    );
    noted(&settings, "over an unencrypted connection");
    assert!(!settings.notes.iter().any(|note| note.contains("SCHEDULE")));
}

#[test]
fn encryption_that_was_asked_for_is_never_left_out() {
    env(&[("BACKUP_ENCRYPT", "true")]).refused(&["BACKUP_ENCRYPT from the environment", "does not encrypt"]);
    env(&[("BACKUP_GPG_RECIPIENT", "ops@example.com")]).refused(&["BACKUP_GPG_RECIPIENT", "BACKUP_ENCRYPT=false"]);
    env(&[("BACKUP_ENCRYPT", "maybe")]).refused(&["BACKUP_ENCRYPT", "true or false"]);
}

#[test]
fn a_copy_to_a_host_is_never_left_out() {
    env(&[("BACKUP_REMOTE", "true")]).refused(&["BACKUP_REMOTE from the environment", "not in this version"]);
    env(&[("BACKUP_REMOTE", "ops@host:/srv")]).refused(&["BACKUP_REMOTE"]);
    noted(&env(&[("BACKUP_REMOTE_HOST", "h")]).load(), "BACKUP_REMOTE_HOST");
}

#[test]
fn older_buckets_become_stores() {
    let stores = |pairs: &[(&str, &str)]| env(pairs).load().stores;
    assert_eq!(
        stores(&[("BACKUP_S3", "true"), ("BACKUP_S3_BUCKET", "shop")]),
        [s3_store("shop")]
    );
    assert_eq!(stores(&[("BACKUP_S3_BUCKET", "s3://shop")]), [s3_store("shop")]);
    assert_eq!(
        stores(&[
            ("BACKUP_DIR", "/srv/a b"),
            ("BACKUP_LOCAL", "false"),
            ("BACKUP_S3_BUCKET", "shop")
        ]),
        [s3_store("shop")]
    );
    assert_eq!(
        stores(&[("BACKUP_DIR", "/srv/a b")]),
        [StoreUrl::Folder("/srv/a b".into())]
    );
    env(&[("BACKUP_S3", "true")]).refused(&["BACKUP_S3_BUCKET names no bucket"]);
    env(&[("BACKUP_MINIO", "true"), ("MINIO_END_POINT", "m")]).refused(&["MINIO_BUCKET names no bucket"]);
    env(&[
        ("BACKUP_S3", "true"),
        ("BACKUP_S3_BUCKET", "one"),
        ("BACKUP_MINIO", "true"),
        ("MINIO_BUCKET", "two"),
    ])
    .refused(&["BACKUP_S3 and BACKUP_MINIO are both true"]);
}

#[test]
fn minio_is_not_used_where_the_backups_go_to_aws() {
    let settings = env(&[
        ("BACKUP_S3", "true"),
        ("BACKUP_S3_BUCKET", "shop"),
        ("MINIO_END_POINT", "localhost"),
        ("MINIO_ACCESS_KEY", "k"),
        ("MINIO_SECRET_KEY", "s"),
    ])
    .load();
    assert!(settings.aws.endpoint_s3.is_none() && settings.aws.s3_access_key_id.is_none());
}

#[test]
fn minios_endpoint_takes_scheme_and_port() {
    let endpoint = |pairs: &[(&str, &str)]| {
        let more = [
            ("MINIO_BUCKET", "shop"),
            ("MINIO_ACCESS_KEY", "k"),
            ("MINIO_SECRET_KEY", "s"),
        ];
        env(pairs).env(&more).load().aws.endpoint_s3.unwrap()
    };
    let host = |host| ("MINIO_END_POINT", host);
    assert_eq!(
        endpoint(&[host("m.example"), ("MINIO_USE_SSL", "true")]),
        "https://m.example"
    );
    assert_eq!(
        endpoint(&[host("m.example"), ("MINIO_PORT", "443")]),
        "https://m.example:443"
    );
    assert_eq!(
        endpoint(&[host("https://m.example/"), ("MINIO_PORT", "9443")]),
        "https://m.example:9443"
    );
    assert_eq!(
        endpoint(&[host("127.0.0.1:9000"), ("MINIO_PORT", "9000")]),
        "http://127.0.0.1:9000"
    );
    assert_eq!(
        endpoint(&[host("m"), ("AWS_ENDPOINT_URL_S3", "https://ours")]),
        "https://ours"
    );
}

#[test]
fn our_names_win_over_older_ones_in_a_layer_and_the_stronger_layer_wins_always() {
    let settings = env(&[("BACKUP_STORE", "s3://ours"), ("BACKUP_DIR", "/theirs")]).load();
    assert_eq!(settings.stores, [s3_store("ours")]);
    noted(&settings, "BACKUP_DIR from the environment not used");
    let settings = env(&[("BACKUP_DIR", "/theirs")])
        .env_file("BACKUP_STORE=s3://ours")
        .load();
    assert_eq!(settings.stores, [StoreUrl::Folder("/theirs".into())]);
}
