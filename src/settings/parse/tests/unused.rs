//! A setting that a command does not use never stops it; one that it uses does.

use super::*;

const NOWHERE: &str = "/nonexistent/file";
const TARGET: (&str, &str) = ("BACKUP_TARGET_URL", "postgres://u:p@h/d");
const SOURCE: (&str, &str) = ("DATABASE_URL", "postgres://u@h/d");

fn with(uses: Uses, pairs: &[(&str, &str)]) -> Place {
    let mut place = env(&[TARGET, SOURCE, ("BACKUP_STORE", "/srv/backups")]).env(pairs);
    place.input.uses = uses;
    place
}

#[track_caller]
fn goes_on(uses: Uses, variable: &str, text: &str) {
    let settings = with(uses, &[(variable, text)]).load();
    let told = |warning: &String| warning.contains(variable) && warning.ends_with("(this command does not need it)");
    assert!(
        settings.warnings.iter().any(told),
        "{variable}: {:?}",
        settings.warnings
    );
}

#[test]
fn a_file_of_a_secret_that_is_not_used_may_be_missing() {
    let reading = [
        Uses::Store,
        Uses::Verify,
        Uses::Drill,
        Uses::Prune,
        Uses::PrunePlan,
        Uses::Rules,
        Uses::RulesShown,
        Uses::Status,
        Uses::Keys,
    ];
    for file in [
        "DB_PASSWORD_FILE",
        "DB_HOST_FILE",
        "DATABASE_URL_FILE",
        "PGPASSWORD_FILE",
        "BACKUP_TARGET_PASSWORD_FILE",
        "AWS_SECRET_ACCESS_KEY_FILE",
        "MINIO_SECRET_KEY_FILE",
    ] {
        for uses in reading {
            goes_on(uses, file, NOWHERE);
        }
        // The target's URL has a password.
        goes_on(Uses::Restore, file, NOWHERE);
        with(Uses::All, &[(file, NOWHERE)]).refused(&[file]);
    }
    for file in ["DB_PASSWORD_FILE", "PGPASSWORD_FILE"] {
        with(Uses::Backup, &[(file, NOWHERE)]).refused(&[file]);
    }
    goes_on(Uses::Backup, "BACKUP_TARGET_PASSWORD_FILE", NOWHERE);
    with(
        Uses::Restore,
        &[("BACKUP_TARGET_URL", "postgres://u@h/d"), ("PGPASSWORD_FILE", NOWHERE)],
    )
    .refused(&["PGPASSWORD_FILE"]);
}

#[test]
fn a_service_of_aws_that_is_not_asked_stops_nothing() {
    let odd = "zz::/nonsense";
    for variable in [
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL_SNS",
        "AWS_ENDPOINT_URL_KMS",
        "AWS_ENDPOINT_URL_ECS",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER",
        "AWS_REGION",
        "BACKUP_S3_TAGGING",
        "BACKUP_S3_CHECKSUMS",
    ] {
        for uses in [Uses::Store, Uses::Verify, Uses::Restore, Uses::Backup, Uses::Keys] {
            goes_on(uses, variable, odd);
        }
        with(Uses::All, &[(variable, odd)]).refused(&[variable]);
    }
    let authorities = [
        ("AWS_CA_BUNDLE", NOWHERE),
        ("BACKUP_SECRET_ID", "one"),
        ("DATABASE_URL", ""),
    ];
    assert_eq!(with(Uses::Store, &authorities).load().aws.ca_bundle, None);
    assert!(with(Uses::Backup, &authorities).load().aws.ca_bundle.is_some());
    let bucket = ("BACKUP_STORE", "s3://bucket");
    for variable in [
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "BACKUP_S3_CHECKSUMS",
    ] {
        with(Uses::Store, &[bucket, (variable, odd)]).refused(&[variable]);
    }
    for variable in ["AWS_ENDPOINT_URL_SNS", "BACKUP_S3_TAGGING"] {
        assert!(!with(Uses::Store, &[bucket, (variable, odd)]).load().warnings.is_empty());
    }
    let secret = ("BACKUP_TARGET_SECRET_ID", "one");
    let endpoint = ("AWS_ENDPOINT_URL_SECRETS_MANAGER", odd);
    let url = ("BACKUP_TARGET_URL", "postgres://h/d");
    with(Uses::Restore, &[secret, url, endpoint]).refused(&[endpoint.0]);
    let topic = ("BACKUP_SNS_TOPIC_ARN", "arn:aws:sns:eu-central-1:000000000000:backups");
    with(Uses::Backup, &[topic, ("AWS_ENDPOINT_URL_SNS", odd)]).refused(&["AWS_ENDPOINT_URL_SNS"]);
}

#[test]
fn a_variable_that_the_sdk_does_not_see_is_warned_of() {
    let place = env(&[("BACKUP_JOBS", "none")]).named_env_file("AWS_PROFILE=corp\n");
    let told = place.refused(&["BACKUP_JOBS"]);
    assert!(told.contains("AWS_PROFILE from named.env was ignored"), "{told}");
    let settings = Place::new().named_env_file("AWS_PROFILE=corp\n").load();
    assert!(settings.warnings[0].contains("AWS_PROFILE"), "{:?}", settings.warnings);
}

#[test]
fn keys_are_made_whatever_the_store_is() {
    goes_on(Uses::Keys, "BACKUP_STORE", "s3://");
    goes_on(Uses::Keys, "BACKUP_VERIFY_KEYS", "arn:odd");
    with(Uses::Store, &[("BACKUP_STORE", "s3://")]).refused(&["BACKUP_STORE"]);
}

#[test]
fn a_log_filter_that_is_none_is_warned_of_and_the_default_shows() {
    for uses in [Uses::All, Uses::Backup, Uses::Store] {
        for odd in ["zz:://", "no=such=level", "loud"] {
            goes_on(uses, "RUST_LOG", odd);
            assert_eq!(with(uses, &[("RUST_LOG", odd)]).load().log.filter, "warn");
        }
        goes_on(uses, "LOG_FORMAT", "xml");
    }
    let settings = with(Uses::Doctor, &[("RUST_LOG", "zz:://")]).load();
    assert!(settings.problems[0].contains("RUST_LOG"), "{:?}", settings.problems);
}

#[test]
fn a_variable_of_libpqs_counts_where_nothing_else_says_that_part() {
    for (uses, own) in [
        (Uses::Backup, ("DATABASE_URL", "postgres://u:p@h:5433/d")),
        (Uses::Restore, ("BACKUP_TARGET_URL", "postgres://u:p@h:5433/d")),
    ] {
        with(uses, &[own, ("PGPORT", "abc")]).load();
        let without = own.1.replace(":5433", "");
        with(uses, &[(own.0, without.as_str()), ("PGPORT", "abc")]).refused(&["PGPORT"]);
        let mode = format!("{}?sslmode=require", own.1);
        with(
            uses,
            &[(own.0, mode.as_str()), ("PGREQUIRESSL", "1"), ("PGCHANNELBINDING", "x")],
        )
        .refused(&["PGCHANNELBINDING"]);
    }
    let secret = [("BACKUP_SECRET_ID", "one"), ("DB_PORT", "5433"), ("PGPORT", "abc")];
    let mut place = env(&secret);
    place.input.uses = Uses::Backup;
    place.load();
}

/// Only a secret that has been read shows whether it has a port.
#[test]
fn what_is_wrong_beneath_a_secret_is_told_where_the_secret_lacks_that_part() {
    let unusable = |source: &CredentialSource| match source {
        CredentialSource::Secret { unusable, .. } => unusable.iter().map(|(part, _)| *part).collect(),
        _ => vec!["no secret"],
    };
    let secret = ("BACKUP_SECRET_ID", "one");
    let mut place = env(&[secret, ("PGPORT", "abc"), ("PGPASSWORD", "x")]);
    place.input.uses = Uses::Backup;
    assert_eq!(unusable(place.load().source()), ["port"]);
    let mut place = env(&[("PGPORT", "abc"), ("DB_PORT", "abc")]).flag("BACKUP_SECRET_ID", "one");
    place.input.uses = Uses::Backup;
    let parts = unusable(place.load().source());
    assert!(
        !parts.is_empty() && parts.iter().all(|part| *part == "port"),
        "{parts:?}"
    );
    // A setting that replaces the secret's port must be a port.
    with(Uses::Backup, &[secret, ("DATABASE_URL", ""), ("DB_PORT", "abc")]).refused(&["DB_PORT"]);
    let mut place = env(&[("BACKUP_TARGET_SECRET_ID", "one")]).named_env_file("BACKUP_TARGET_PORT=abc\n");
    place.input.uses = Uses::Restore;
    assert_eq!(unusable(place.load().target()), ["port"]);
}

#[test]
fn a_hint_is_that_of_the_problem_that_is_told_and_a_problem_is_told_once() {
    let hint = |place: &Place| {
        let error = Settings::load(&place.input).unwrap_err();
        error.hint_text().to_owned()
    };
    let passed = with(
        Uses::PrunePlan,
        &[("DATABASE_URL", "postgres://u@h:x/d"), ("BACKUP_KEEP_LAST", "zz")],
    );
    let alone = with(Uses::PrunePlan, &[("BACKUP_KEEP_LAST", "zz")]);
    assert_eq!(hint(&passed), hint(&alone));
    let port = with(Uses::Backup, &[("DB_PORT", "abc")]);
    assert!(!hint(&port).contains("%2F"), "{}", hint(&port));
    let url = with(Uses::Backup, &[("DATABASE_URL", "postgres://u@h:x/d")]);
    assert!(hint(&url).contains("%2F"), "{}", hint(&url));
    let service = with(Uses::Restore, &[("PGSERVICE", "nowhere")]);
    let told = service.refused(&["nowhere"]);
    assert_eq!(told.matches("is not defined").count(), 1, "{told}");
}
