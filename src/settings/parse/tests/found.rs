//! The `.env` that the user has not named: it may have come with a folder.

use super::*;

const OWN: &str = "DB_HOST=theirs\nDB_NAME=shop\nDB_USER=ada\n";

#[track_caller]
fn ignored(settings: &Settings, name: &str) {
    let start = format!("{name} from .env was ignored: a .env found in the working folder may not ");
    let told = settings
        .warnings
        .iter()
        .filter(|warning| warning.starts_with(&start))
        .count();
    assert_eq!(told, 1, "{name}: {:?}", settings.warnings);
}

#[test]
fn it_names_no_file_of_secrets_no_keys_no_consent_and_no_program() {
    let text = format!(
        "{OWN}DB_PASSWORD_FILE=key\nPGPASSWORD_FILE=key\nDB_USER_FILE=key\nDATABASE_URL_FILE=key\n\
         AWS_SESSION_TOKEN_FILE=key\nMINIO_SECRET_KEY_FILE=key\nPGPASSFILE=key\nPGSERVICEFILE=key\nPGSSLKEY=key\n\
         PGSSLCERT=key\nBACKUP_DRILL_UNCONFINED=true\nBACKUP_ALLOW_RESTORE=true\nBACKUP_ADOPT=true\n\
         BACKUP_STATE_DIR=/x\nBACKUP_METRICS_FILE=/x/y.prom\nBACKUP_HANDOVER=ecs\nBACKUP_PG_BIN=/x\n"
    );
    let settings = Place::new().file("key", "hunter2\n").env_file(&text).load();
    for line in text.lines().skip(3) {
        ignored(&settings, line.split_once('=').unwrap().0);
    }
    assert_eq!(direct(&settings).target(), "ada@theirs:5432/shop");
    assert!(password(&settings).is_none());
    assert!(
        !settings.drill_unconfined && !settings.allow_restore && !settings.adopt && settings.postgres.bin.is_none()
    );
    assert!(!format!("{:?}{:?}", settings.warnings, settings.notes).contains("hunter2"));
    // A file that the user has named may set all of this.
    let settings = Place::new()
        .file("key", "hunter2\n")
        .named_env_file(&format!("{OWN}DB_PASSWORD_FILE=key\nBACKUP_DRILL_UNCONFINED=true\n"))
        .load();
    assert_eq!(
        (password(&settings), settings.drill_unconfined),
        (Some("hunter2"), true)
    );
    // The URL may not name such files either.
    for part in ["passfile=key", "service=shop", "sslkey=key", "sslcert=key"] {
        Place::new()
            .file("key", "hunter2\n")
            .env_file(&format!("DATABASE_URL=postgres://u@h/db?{part}\n"))
            .refused(&["DATABASE_URL from .env: a .env found in the working folder may not choose files of keys"]);
    }
}

#[test]
fn it_does_not_say_which_keys_are_trusted_and_its_word_is_not_passed_over_either() {
    for name in ["BACKUP_VERIFY_KEYS", "BACKUP_SIGN_KEY", "BACKUP_SIGN_KEY_PASSWORD_FILE"] {
        let message = Place::new().env_file(&format!("{name}=./key\n"));
        message.refused(&[name, "may not choose the keys that sign or are trusted", "--env-file"]);
    }
}

#[test]
fn a_password_of_anothers_goes_to_no_place_that_it_names() {
    let refusal = "may not decide where credentials from elsewhere go";
    let secret = ("BACKUP_SECRET_ID", "prod");
    for (env_pairs, text) in [
        (vec![("DB_PASSWORD", "hunter2")], "DB_HOST=theirs\n"),
        (vec![("PGPASSWORD", "hunter2")], "DATABASE_URL=postgres://u@theirs/db\n"),
        // The password of the stronger layer counts.
        (
            vec![("DB_PASSWORD", "hunter2")],
            "DATABASE_URL=postgres://u:own@theirs/db\n",
        ),
        (
            vec![("PGHOST", "h"), ("PGPASSWORD", "hunter2")],
            "PGHOSTADDR=203.0.113.1\n",
        ),
        (vec![("DATABASE_URL", "postgres://u:hunter2@h/db")], "DB_PORT=9\n"),
        (
            vec![("DATABASE_URL", "postgres://u:hunter2@h/db?sslmode=verify-full")],
            "PGSSLROOTCERT=theirs.pem\n",
        ),
        (
            vec![("DATABASE_URL", "postgres://u:hunter2@h/db")],
            "PGSSLMODE=disable\n",
        ),
        (
            vec![("DATABASE_URL", "postgres://u:hunter2@h/db")],
            "PGREQUIREAUTH=password\n",
        ),
        (vec![secret], "DB_HOST=theirs\n"),
        (vec![secret], "DATABASE_URL=postgres://theirs/db\n"),
        (vec![secret], "PGHOSTADDR=203.0.113.1\n"),
        (vec![], "BACKUP_SECRET_ID=any\nDB_HOST=theirs\n"),
        // The name of one host, with the address of another.
        (
            vec![("HOME", "/home/ada")],
            "DATABASE_URL=postgres://u@h/d?hostaddr=203.0.113.1\n",
        ),
        (
            vec![],
            "DATABASE_URL=postgres://u@h/d?hostaddr=203.0.113.1\nBACKUP_DB_AUTH=iam\n",
        ),
    ] {
        let place = env(&env_pairs).env_file(text);
        let message = place.refused(&[refusal, "from .env", "--env-file"]);
        assert!(!message.contains("hunter2"), "{message}");
    }
    // Also a password of the config file, which is a weaker layer.
    Place::new()
        .toml("database_url = 'postgres://u:hunter2@h/db?sslmode=verify-full'\n")
        .env_file("DB_HOST=theirs\n")
        .refused(&["DB_HOST from .env", refusal]);
    for text in [
        "BACKUP_TARGET_HOST=theirs\n",
        "BACKUP_TARGET_URL=postgres://u@theirs/db\n",
    ] {
        env(&[("BACKUP_TARGET_PASSWORD", "hunter2")])
            .env_file(text)
            .refused(&["BACKUP_TARGET_", refusal]);
    }
}

#[test]
fn its_own_password_may_go_where_it_says_and_what_only_strengthens_counts() {
    // The file of an application, with another database.
    let theirs = "DB_HOST=localhost\nDB_PORT=6\nDB_NAME=app\nDB_USER=app\nDB_PASSWORD=app\n";
    let settings = env(&[("DATABASE_URL", "postgres://u:p@h:5/db")])
        .env_file(theirs)
        .load();
    assert_eq!(
        (direct(&settings).target(), password(&settings)),
        ("u@h:5/db".into(), Some("p"))
    );
    let settings = env(&[("PGPASSWORD", "other")]).env_file(theirs).load();
    assert_eq!(
        (direct(&settings).target(), password(&settings)),
        ("app@localhost:6/app".into(), Some("app"))
    );
    let settings = Place::new()
        .env_file("DATABASE_URL=postgres://u:p@h/db?sslmode=disable&require_auth=password\n")
        .load();
    assert_eq!(password(&settings), Some("p"));
    // libpq's file names the host for each password.
    let settings = env(&[("HOME", "/home/ada")])
        .env_file(&format!("{OWN}PGSSLMODE=disable\n"))
        .load();
    assert_eq!(direct(&settings).target(), "ada@theirs:5432/shop");
    let settings = Place::new()
        .env_file("BACKUP_SECRET_ID=prod\nPGSSLMODE=verify-full\nPGSSLROOTCERT=ca.pem\nDB_NAME=shop\n")
        .load();
    assert!(matches!(settings.source(), CredentialSource::Secret { .. }));
    env(&[("DATABASE_URL", "postgres://u:p@h/db")])
        .env_file("PGSSLMODE=verify-full\nPGSSLROOTCERT=ca.pem\n")
        .load();
}

#[test]
fn aws_credentials_of_anothers_go_to_no_endpoint_that_it_names() {
    let refusal = "may not decide where AWS credentials from elsewhere go";
    let keys = [("AWS_ACCESS_KEY_ID", "AKIA1"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let store = "BACKUP_STORE=s3://shop-backups\n";
    for text in [
        "AWS_ENDPOINT_URL_S3=https://theirs\n",
        "AWS_ENDPOINT_URL=https://theirs\n",
        "AWS_CA_BUNDLE=theirs.pem\n",
        "BACKUP_MINIO=true\nMINIO_BUCKET=shop\nMINIO_END_POINT=theirs\n",
    ] {
        env(&keys).env_file(&format!("{text}{store}")).refused(&[refusal]);
        Place::new().env_file(&format!("{text}{store}")).refused(&[refusal]);
    }
    for service in ["SECRETS_MANAGER", "SNS", "KMS", "ECS"] {
        let name = format!("AWS_ENDPOINT_URL_{service}");
        let settings = env(&keys).env_file(&format!("{store}{name}=https://theirs\n")).load();
        ignored(&settings, &name);
        let aws = &settings.aws;
        for endpoint in [
            &aws.endpoint_secrets,
            &aws.endpoint_sns,
            &aws.endpoint_kms,
            &aws.endpoint_ecs,
        ] {
            assert!(endpoint.is_none(), "{service}");
        }
    }
    // Without a store in S3, an application's own endpoint does not matter.
    let settings = env(&keys).env_file("AWS_ENDPOINT_URL=http://localhost:4566\n").load();
    ignored(&settings, "AWS_ENDPOINT_URL");
    assert!(settings.aws.endpoint.is_none());
    // The file's own keys may go to its own endpoint.
    let own = format!(
        "{store}AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\nAWS_ENDPOINT_URL=https://s3.example\nAWS_CA_BUNDLE=ca.pem\n"
    );
    let settings = Place::new().env_file(&own).load();
    assert_eq!(settings.aws.endpoint.as_deref(), Some("https://s3.example"));
    let settings = Place::new()
        .env_file("MINIO_END_POINT=minio\nMINIO_BUCKET=shop\nMINIO_ACCESS_KEY=a\nMINIO_SECRET_KEY=b\n")
        .load();
    assert_eq!(settings.aws.endpoint_s3.as_deref(), Some("http://minio"));
    // A region becomes a part of the host name.
    for region in ["theirs.example/", "x@theirs.example", "a.b"] {
        env(&[("AWS_REGION", region)]).refused(&["AWS_REGION", "expected a region"]);
    }
}

#[test]
fn what_stands_in_anothers_store_is_neither_removed_nor_encrypted_by_its_word() {
    let mut place = env(&[("BACKUP_STORE", "/srv/backups")]).env_file("BACKUP_RETENTION=1d\nBACKUP_KEEP_LAST=1\n");
    place.input.uses = Uses::Prune;
    place.refused(&[
        "BACKUP_RETENTION from .env: a .env found in the working folder may not decide what pgstow removes from a \
         store",
        "BACKUP_KEEP_LAST from .env",
    ]);
    // A backup only marks itself with its tier.
    place.input.uses = Uses::All;
    assert_eq!(place.load().retention.policy, Policy::Days(1));
    let mut own = Place::new().env_file("BACKUP_DIR=/srv/backups\nBACKUP_RETENTION_DAYS=14\n");
    own.input.uses = Uses::Prune;
    assert_eq!(own.load().retention.policy, Policy::Days(14));
    let key = "BACKUP_S3_KMS_KEY_ID=arn:aws:kms:eu-west-1:210987654321:key/theirs\n";
    env(&[("BACKUP_STORE", "s3://shop-backups")])
        .env_file(key)
        .refused(&["BACKUP_S3_KMS_KEY_ID from .env", "may not choose a key"]);
    Place::new()
        .env_file(&format!("{key}BACKUP_STORE=s3://shop-backups\n"))
        .load();
}

#[test]
fn doctor_does_not_send_anything_where_it_says_either() {
    let mut place = env(&[("DB_PASSWORD", "hunter2")]).env_file(OWN);
    place.input.uses = Uses::Doctor;
    place.refused(&["may not decide where credentials from elsewhere go"]);
    let mut place = env(&[("BACKUP_STORE", "s3://shop"), ("AWS_ACCESS_KEY_ID", "a")])
        .env_file("AWS_ENDPOINT_URL_S3=https://theirs.example\n");
    place.input.uses = Uses::Doctor;
    place.refused(&[
        "AWS_ENDPOINT_URL_S3 from .env",
        "may not decide where AWS credentials from elsewhere go",
    ]);
    // `doctor` shows all other wrong values.
    let mut place = env(&[("BACKUP_LEASE_SECONDS", "x")]);
    place.input.uses = Uses::Doctor;
    assert_eq!(place.load().problems.len(), 1);
}

#[test]
fn what_leads_nowhere_else_and_makes_no_line_less_safe_counts() {
    let url = [("DATABASE_URL", "postgres://u:hunter2@h/db")];
    for harmless in [
        "PGCONNECT_TIMEOUT=5",
        "PGTARGETSESSIONATTRS=any",
        "PGSSLSNI=1",
        "PGKRBSRVNAME=x",
        "PGCHANNELBINDING=require",
        "PGSSLMINPROTOCOLVERSION=TLSv1.3",
        "PGREQUIREAUTH=scram-sha-256",
        "PGGSSENCMODE=disable",
    ] {
        env(&url).env_file(&format!("{harmless}\n")).load();
    }
    for harm in [
        "PGOPTIONS=-c a=b",
        "PGREQUIREAUTH=password",
        "PGSSLMINPROTOCOLVERSION=TLSv1",
        "PGGSSDELEGATION=1",
    ] {
        env(&url)
            .env_file(&format!("{harm}\n"))
            .refused(&["may not decide where credentials from elsewhere go"]);
    }
    // A backup does not use the target of a restore.
    let mut place = env(&[url[0], ("PGPASSWORD", "x")]).env_file("BACKUP_TARGET_HOST=theirs\n");
    place.input.uses = Uses::Backup;
    place.load();
    // A plan removes nothing.
    let mut place = env(&[("BACKUP_STORE", "/srv/backups")]).env_file("BACKUP_RETENTION_DAYS=7\n");
    place.input.uses = Uses::PrunePlan;
    assert_eq!(place.load().retention.policy, Policy::Days(7));
}
