//! The variable names of the two systems that pgstow replaces. They become pgstow's own settings before anything is
//! validated. Within a layer pgstow's own names win; a stronger layer always wins.
//!
//! If this version cannot do what an old variable asks for, it refuses the variable where the backup would be weaker
//! without it (encryption, the copy by SCP). Otherwise it only adds a note.

use super::problems::Problems;
use super::specs::truth;
use super::value::{Value, Values};

/// Schedules are for `serve`; a command that runs once does not use them.
pub const NAMES: &[&str] = &[
    "BACKUP_DIR",
    "BACKUP_LOCAL",
    "BACKUP_S3",
    "BACKUP_S3_BUCKET",
    "BACKUP_MINIO",
    "MINIO_END_POINT",
    "MINIO_PORT",
    "MINIO_USE_SSL",
    "MINIO_ACCESS_KEY",
    "MINIO_SECRET_KEY",
    "MINIO_BUCKET",
    "BACKUP_REMOTE",
    "BACKUP_REMOTE_HOST",
    "BACKUP_REMOTE_PORT",
    "BACKUP_REMOTE_USER",
    "BACKUP_REMOTE_PATH",
    "BACKUP_REMOTE_DIR",
    "BACKUP_REMOTE_KEY",
    "BACKUP_REMOTE_SSH_KEY",
    "BACKUP_ENCRYPT",
    "BACKUP_GPG_RECIPIENT",
    "BACKUP_EMAIL_NOTIFY",
    "BACKUP_EMAIL_TO",
    "FULL_BACKUP_SCHEDULE",
    "INCREMENTAL_BACKUP_SCHEDULE",
    "CLEANUP_SCHEDULE",
];

/// Settings that only an alias can give: pgstow has no own variable for them.
pub const S3_ACCESS_KEY: &str = "MINIO_ACCESS_KEY";
pub const S3_SECRET_KEY: &str = "MINIO_SECRET_KEY";

/// The key for the value of an older variable, if the name is one.
pub fn variable(name: &str) -> Option<&'static str> {
    NAMES.iter().copied().find(|known| *known == name)
}

pub fn translate(values: &mut Values, problems: &mut Problems, notes: &mut Vec<String>, warnings: &mut Vec<String>) {
    // These stop only a backup: a stored backup is restored as it is.
    let mut of_backups = Problems::default();
    refuse_what_would_weaken(values, &mut of_backups, notes);
    if let Some(told) = without_mail(values, &mut of_backups) {
        notes.push(told.clone());
        warnings.push(told);
    }
    problems.absorb(of_backups, "BACKUP_ENCRYPT");
    let minio = minio_is_meant(values, problems);
    stores(values, minio, problems, notes);
    if minio {
        endpoint(values, problems, notes);
    } else {
        values.remove(S3_ACCESS_KEY);
        values.remove(S3_SECRET_KEY);
    }
}

fn switch(values: &Values, name: &'static str, problems: &mut Problems) -> Option<bool> {
    let value = values.get(name)?;
    let parsed = truth(value.text());
    if parsed.is_none() {
        problems.add(format!("{}: expected true or false", value.name));
    }
    parsed
}

fn refuse_what_would_weaken(values: &Values, problems: &mut Problems, notes: &mut Vec<String>) {
    let refusal = "this version does not encrypt, and does not store a backup unencrypted that you wanted encrypted";
    match (
        switch(values, "BACKUP_ENCRYPT", problems),
        values.get("BACKUP_GPG_RECIPIENT"),
    ) {
        (Some(true), _) => {
            let name = values.get("BACKUP_ENCRYPT").map_or("", |value| value.name.as_str());
            problems.add(format!(
                "{name}: {refusal}; set BACKUP_ENCRYPT=false, and the store encrypts (BACKUP_S3_SSE)"
            ));
        }
        (None, Some(recipient)) if values.get("BACKUP_ENCRYPT").is_none() => problems.add(format!(
            "{}: {refusal}; set BACKUP_ENCRYPT=false to store it so",
            recipient.name
        )),
        _ => {}
    }
    if let Some(remote) = values.get("BACKUP_REMOTE") {
        // Any other value asks for a copy, and pgstow would silently not make it.
        if truth(remote.text()) != Some(false) {
            problems.add(format!(
                "{}: copies to a host by SCP or SFTP are not in this version; set BACKUP_REMOTE=false, and give \
                 --store once more for a copy elsewhere",
                remote.name
            ));
        }
    } else if let Some(host) = values.get("BACKUP_REMOTE_HOST") {
        notes.push(format!(
            "{} has no effect: copies to a host are not in this version",
            host.name
        ));
    }
}

/// A warning, not only a note: people wait for these messages.
fn without_mail(values: &Values, problems: &mut Problems) -> Option<String> {
    let email = switch(values, "BACKUP_EMAIL_NOTIFY", problems);
    let wanted = match email {
        Some(wanted) => wanted,
        None => values.get("BACKUP_EMAIL_TO").is_some(),
    };
    let named = values
        .get("BACKUP_EMAIL_NOTIFY")
        .or_else(|| values.get("BACKUP_EMAIL_TO"));
    let named = named.filter(|_| wanted)?;
    Some(format!(
        "{} has no effect: e-mail is not in this version; use SNS (BACKUP_SNS_TOPIC_ARN), which can send it",
        named.name
    ))
}

/// Whether pgstow uses the `MINIO_*` variables. A `.env` made from a template has them even if backups go to AWS, so if
/// `BACKUP_S3` is set they need `BACKUP_MINIO=true`.
fn minio_is_meant(values: &Values, problems: &mut Problems) -> bool {
    match switch(values, "BACKUP_MINIO", problems) {
        Some(meant) => meant,
        None => values.get("MINIO_END_POINT").is_some() && values.get("BACKUP_S3").is_none(),
    }
}

/// Turns `BACKUP_DIR`, `BACKUP_S3_BUCKET`, `MINIO_BUCKET` and their switches into `BACKUP_STORE`: first the folder, as
/// in the older systems, then the bucket.
fn stores(values: &mut Values, minio: bool, problems: &mut Problems, notes: &mut Vec<String>) {
    let local = switch(values, "BACKUP_LOCAL", problems);
    let s3 = switch(values, "BACKUP_S3", problems);
    let mut found: Vec<Value> = Vec::new();

    let folder = values.get("BACKUP_DIR").or_else(|| values.get("BACKUP_LOCAL"));
    if let Some(folder) = folder.filter(|_| local != Some(false)) {
        let path = values.get("BACKUP_DIR").map_or("./backups", Value::text).to_owned();
        found.push(Value {
            texts: vec![path],
            ..folder.clone()
        });
    }

    found.extend(bucket(values, (s3, minio), problems));

    let Some(strongest) = found.iter().min_by_key(|value| value.layer).cloned() else {
        return;
    };
    let names: Vec<&str> = found.iter().map(|value| value.name.as_str()).collect();
    let names = names.join(" and ");
    if let Some(ours) = values.get("BACKUP_STORE").filter(|ours| ours.at_least(&strongest)) {
        notes.push(format!("{names} not used: {} names the stores", ours.name));
        return;
    }
    let texts = found.iter().flat_map(|value| value.texts.clone()).collect();
    values.set(
        "BACKUP_STORE",
        Value {
            texts,
            layer: strongest.layer,
            name: names,
            file: None,
        },
    );
}

/// The bucket that `BACKUP_S3_BUCKET` or `MINIO_BUCKET` names, if the switches want one.
fn bucket(values: &Values, (s3, minio): (Option<bool>, bool), problems: &mut Problems) -> Option<Value> {
    let bucket = match (s3, minio) {
        (Some(true), true) => {
            problems.add(
                "BACKUP_S3 and BACKUP_MINIO are both true: this version uses one S3 endpoint; set one of them to false"
                    .to_owned(),
            );
            None
        }
        (_, true) => values.get("MINIO_BUCKET").or_else(|| values.get("BACKUP_S3_BUCKET")),
        (Some(false), false) => None,
        (_, false) => values.get("BACKUP_S3_BUCKET"),
    };
    match bucket {
        Some(bucket) => {
            let text = bucket.text().trim_start_matches("s3://");
            return Some(Value {
                texts: vec![format!("s3://{text}")],
                ..bucket.clone()
            });
        }
        None if s3 == Some(true) && !minio && values.get("BACKUP_STORE").is_none() => {
            problems.add("BACKUP_S3 is true, but BACKUP_S3_BUCKET names no bucket".to_owned());
        }
        None if minio && s3 != Some(true) && values.get("BACKUP_STORE").is_none() => {
            problems.add("MinIO is the store, but MINIO_BUCKET names no bucket".to_owned());
        }
        None => {}
    }
    None
}

/// Turns `MINIO_END_POINT`, `MINIO_PORT` and `MINIO_USE_SSL` into `AWS_ENDPOINT_URL_S3`.
fn endpoint(values: &mut Values, problems: &mut Problems, notes: &mut Vec<String>) {
    let Some(host) = values.get("MINIO_END_POINT").cloned() else {
        return;
    };
    let ours = values.get("AWS_ENDPOINT_URL_S3");
    if ours.is_some_and(|ours| ours.at_least(&host)) {
        return;
    }
    let ssl = switch(values, "MINIO_USE_SSL", problems);
    let port = values.get("MINIO_PORT").map(|port| port.text().trim().to_owned());
    if port.as_ref().is_some_and(|port| port.parse::<u16>().is_err()) {
        problems.add("MINIO_PORT: expected a port number".to_owned());
    }
    let text = host.text().trim().trim_end_matches('/');
    let url = match text.split_once("://") {
        Some(_) => text.to_owned(),
        None => {
            // The older systems used TLS only if MINIO_USE_SSL was `true`.
            let scheme = if ssl.unwrap_or(port.as_deref() == Some("443")) {
                "https"
            } else {
                "http"
            };
            format!("{scheme}://{text}")
        }
    };
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let loopback = ["localhost", "127.", "[::1]"]
        .iter()
        .any(|start| authority.starts_with(start));
    if url.starts_with("http://") && ssl.is_none() && !loopback {
        notes.push(format!(
            "{}: backups go over an unencrypted connection, because MINIO_USE_SSL is not set; set it to true for \
             https",
            host.name
        ));
    }
    let url = match port {
        Some(port) if !has_port => format!("{url}:{port}"),
        _ => url,
    };
    values.set(
        "AWS_ENDPOINT_URL_S3",
        Value {
            texts: vec![url],
            ..host
        },
    );
}
