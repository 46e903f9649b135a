//! Names that look like settings but are none: misspelt ones, and names that other systems use for a setting of pgstow.
//! One warning lists all of them, whatever the log's level is: pgstow must not ignore silently what a user has set.

use super::aliases;
use super::setting::nearest;
use super::table::SETTINGS;

/// Variables that pgstow reads before it has settings.
const READ_ELSEWHERE: [&str; 2] = ["BACKUP_ENV_FILE", "BACKUP_CONFIG"];

/// Names of other programs for the parts of a connection, and pgstow's names for them.
const OTHERS: &[(&str, &str)] = &[
    ("PG_HOST", "DB_HOST"),
    ("PG_PORT", "DB_PORT"),
    ("PG_DATABASE", "DB_NAME"),
    ("PG_DB", "DB_NAME"),
    ("PG_USER", "DB_USER"),
    ("PG_PASSWORD", "DB_PASSWORD"),
    ("DB_DATABASE", "DB_NAME"),
];

/// All names with this start are meant for pgstow.
const OURS: &str = "BACKUP_";
/// Other programs use these starts too, so pgstow warns only about names that are nearly one of its own.
const SHARED: [&str; 2] = ["DB_", "MINIO_"];
const MAIL: [&str; 2] = ["MAIL_", "SMTP_"];

/// The unknown names found so far.
#[derive(Default)]
pub struct Unknown(Vec<Met>);

/// Names with the same place and the same remark.
struct Met {
    names: Vec<String>,
    place: String,
    remark: Option<String>,
}

impl Unknown {
    /// Keeps a variable that is no setting if a user may think that it is one.
    pub fn meet(&mut self, name: &str, text: &str, place: &str) {
        let Some(remark) = remark(name).filter(|_| !is_of_a_service(name, text)) else {
            return;
        };
        let alike = |met: &&mut Met| met.place == place && met.remark == remark;
        match self.0.iter_mut().find(alike) {
            Some(met) => met.names.push(name.to_owned()),
            None => self.0.push(Met {
                names: vec![name.to_owned()],
                place: place.to_owned(),
                remark,
            }),
        }
    }

    pub fn warning(&self) -> Option<String> {
        let told = self.0.iter().map(|met| {
            let remark = met.remark.as_ref().map(|remark| format!(" ({remark})"));
            format!(
                "{} from {}{}",
                met.names.join(", "),
                met.place,
                remark.unwrap_or_default()
            )
        });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| format!("not settings of pgstow, and so ignored: {}", told.join("; ")))
    }
}

/// Kubernetes names each Service of a namespace to its containers: `MAIL_SERVICE_HOST`, `MAIL_PORT=tcp://10.0.0.7:25`.
fn is_of_a_service(name: &str, text: &str) -> bool {
    let words = ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_UDP"];
    words.iter().any(|word| name.contains(word)) || text.starts_with("tcp://") || text.starts_with("udp://")
}

/// The remark in the warning about a name. `None`: no warning; `Some(None)`: a warning without remark.
fn remark(name: &str) -> Option<Option<String>> {
    if READ_ELSEWHERE.contains(&name) {
        return None;
    }
    if let Some((_, ours)) = OTHERS.iter().find(|(other, _)| *other == name) {
        return Some(Some(format!("it is {ours} here")));
    }
    if MAIL.iter().any(|start| name.starts_with(start)) {
        let instead = "e-mail is not in this version: SNS can send it, see BACKUP_SNS_TOPIC_ARN";
        return Some(Some(instead.to_owned()));
    }
    let meant = |start: &str| Some(format!("did you mean {start}{}?", near(name, start)?));
    if name.starts_with(OURS) {
        return Some(meant(OURS));
    }
    SHARED.into_iter().find_map(meant).map(Some)
}

/// The setting with this start whose rest is most similar to the rest of the name.
fn near(name: &str, start: &str) -> Option<&'static str> {
    let rest = name.strip_prefix(start)?;
    let settings = SETTINGS.iter().map(|setting| setting.variable);
    let known = settings.chain(aliases::NAMES.iter().copied());
    nearest(rest, known.filter_map(|known| known.strip_prefix(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_names_all_with_what_was_meant() {
        let mut unknown = Unknown::default();
        for name in [
            "BACKUP_STROE",
            "BACKUP_FOO",
            "PG_HOST",
            "MAIL_HOST",
            "BACKUP_ENV_FILE",
            "DB_PASS",
            "HOME",
        ] {
            unknown.meet(name, "x", "the environment");
        }
        for name in [
            "MAIL_HOST",
            "MAIL_PORT",
            "MINIO_ENDPOINT",
            "MINIO_ROOT_USER",
            "DB_CONNECTION",
        ] {
            unknown.meet(name, "x", ".env");
        }
        unknown.meet("PG_PORT", "tcp://10.0.0.7:5432", "the environment");
        unknown.meet("BACKUP_SERVICE_HOST", "10.0.0.7", "the environment");
        let mail = "(e-mail is not in this version: SNS can send it, see BACKUP_SNS_TOPIC_ARN)";
        assert_eq!(
            unknown.warning().unwrap(),
            format!(
                "not settings of pgstow, and so ignored: BACKUP_STROE from the environment (did you mean BACKUP_STORE?); \
                 BACKUP_FOO from the environment; PG_HOST from the environment (it is DB_HOST here); MAIL_HOST from the \
                 environment {mail}; DB_PASS from the environment (did you mean DB_PASSWORD?); MAIL_HOST, MAIL_PORT from \
                 .env {mail}; MINIO_ENDPOINT from .env (did you mean MINIO_END_POINT?)"
            )
        );
        assert!(Unknown::default().warning().is_none());
    }
}
