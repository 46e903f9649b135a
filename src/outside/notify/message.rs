//! A notice as text, within the limits of the services that deliver it.

use serde_json::{Map, Value, json};

use super::{Notice, RunStatus};
use crate::printable;

/// SNS takes fewer than 100 ASCII characters; the first must not be a space.
const SUBJECT_CHARS: usize = 99;
/// SNS and SQS take 256 KiB including all attributes; this leaves room for those.
pub(super) const BODY_BYTES: usize = 252 * 1024;
/// If the report is too long, each list keeps only this many elements; tried in this order.
const LIST_LENGTHS: [usize; 4] = [200, 50, 10, 0];
/// The bytes that a text keeps in this case.
const TEXT_BYTES: usize = 2_000;
const NOTE: &str = "shortened to fit a message; the backup's manifest.json and the log have everything";

/// `pgstow <database> backup SUCCEEDED|DEGRADED|FAILED`, or `verify` or `drill`, in ASCII. If it is too long, the
/// database's name is cut, because the result matters most.
pub(super) fn subject(notice: &Notice) -> String {
    let outcome = match notice.status {
        RunStatus::Succeeded => "SUCCEEDED",
        RunStatus::Degraded => "DEGRADED",
        RunStatus::Failed(_) => "FAILED",
    };
    let rest = format!("{} {outcome}", notice.about.word());
    let Some(database) = &notice.database else {
        return format!("pgstow {rest}");
    };
    let room = SUBJECT_CHARS - "pgstow ".len() - " ".len() - rest.len();
    let name: String = database
        .chars()
        .take(room)
        .map(|char| if matches!(char, ' '..='~') { char } else { '?' })
        .collect();
    format!("pgstow {name} {rest}")
}

/// The summary, an empty line, the report as JSON; at most `limit` bytes.
pub(super) fn body(notice: &Notice, limit: usize) -> String {
    let mut summary = notice.summary.trim_end().to_owned();
    cut(&mut summary, limit / 4);
    let join = |report: &Value| printable(&format!("{summary}\n\n{report:#}\n"), &['\n', '\t']);
    let whole = join(&notice.report);
    if whole.len() <= limit {
        return whole;
    }
    for length in LIST_LENGTHS {
        let mut report = shortened(&notice.report, length);
        if let Value::Object(fields) = &mut report {
            fields.insert("shortened".to_owned(), json!(NOTE));
        }
        let text = join(&report);
        if text.len() <= limit {
            return text;
        }
    }
    // A report with thousands of fields: keep only the fields that every report has.
    let mut fields: Map<String, Value> = Map::new();
    fields.insert("status".to_owned(), json!(notice.status.word()));
    if let Some(code) = notice.status.code() {
        fields.insert("error".to_owned(), json!({ "code": code }));
    }
    fields.insert("shortened".to_owned(), json!(NOTE));
    join(&Value::Object(fields))
}

fn shortened(value: &Value, length: usize) -> Value {
    match value {
        Value::Array(list) => {
            let mut short: Vec<Value> = list.iter().take(length).map(|one| shortened(one, length)).collect();
            if list.len() > length {
                short.push(json!(format!("… and {} more", list.len() - length)));
            }
            Value::Array(short)
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), shortened(value, length)))
            .collect(),
        Value::String(text) => {
            let mut text = text.clone();
            cut(&mut text, TEXT_BYTES);
            Value::String(text)
        }
        other => other.clone(),
    }
}

fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
}

/// Removes the characters that make SNS or SQS refuse the whole message.
fn printable(text: &str, controls: &[char]) -> String {
    let allowed =
        |char: char| controls.contains(&char) || !(printable::steers(char) || matches!(char, '\u{fffe}' | '\u{ffff}'));
    text.chars()
        .map(|char| if allowed(char) { char } else { '?' })
        .collect()
}

/// The attributes that a filter policy can match. Empty values are left out: with one, SNS refuses the whole message.
pub(super) fn attributes(notice: &Notice) -> Vec<(&'static str, String)> {
    let code = notice.status.code().map(str::to_owned);
    [
        ("status", Some(notice.status.word().to_owned())),
        ("database", notice.database.as_deref().map(|name| printable(name, &[]))),
        ("kind", Some(notice.about.kind().to_owned())),
        ("code", code),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::outside::notify::About;
    use crate::repository::backup_id::BackupKind;
    use proptest::prelude::*;

    fn notice(database: Option<&str>, status: RunStatus, report: Value) -> Notice {
        Notice {
            status,
            about: About::Backup(BackupKind::Full),
            database: database.map(str::to_owned),
            summary: "Backup of shop: 3 tables, 42 rows.\n".into(),
            report,
        }
    }

    fn subject_of(database: &str) -> String {
        subject(&notice(Some(database), RunStatus::Failed(Code::Store), json!({})))
    }

    #[test]
    fn the_subject_is_ascii_and_says_the_outcome() {
        let good = notice(Some("shop"), RunStatus::Succeeded, json!({}));
        assert_eq!(subject(&good), "pgstow shop backup SUCCEEDED");
        assert_eq!(subject_of("Ünï\ncode 🐘"), "pgstow ?n??code ? backup FAILED");
        let degraded = notice(Some("shop"), RunStatus::Degraded, json!({}));
        assert_eq!(subject(&degraded), "pgstow shop backup DEGRADED");
        assert!(attributes(&degraded).contains(&("status", "degraded".to_owned())));
        assert!(attributes(&degraded).contains(&("code", "DEGRADED".to_owned())));
        let unknown = notice(None, RunStatus::Failed(Code::Secret), json!({}));
        assert_eq!(subject(&unknown), "pgstow backup FAILED");
        let long = subject_of(&"x".repeat(200));
        assert_eq!(long.len(), 99);
        assert!(long.ends_with("x backup FAILED"));
    }

    #[test]
    fn a_verification_and_a_drill_are_named_as_what_they_are() {
        let mut notice = notice(Some("shop"), RunStatus::Failed(Code::Integrity), json!({}));
        for (about, word) in [(About::Verify, "verify"), (About::Drill, "drill")] {
            notice.about = about;
            assert_eq!(subject(&notice), format!("pgstow shop {word} FAILED"));
            assert!(attributes(&notice).contains(&("kind", word.to_owned())));
        }
    }

    #[test]
    fn the_summary_comes_first_then_the_whole_report() {
        let report = json!({"status": "succeeded", "tables": [1, 2, 3]});
        let text = body(&notice(Some("shop"), RunStatus::Succeeded, report.clone()), BODY_BYTES);
        let (summary, json) = text.split_once("\n\n").unwrap();
        assert_eq!(summary, "Backup of shop: 3 tables, 42 rows.");
        assert_eq!(serde_json::from_str::<Value>(json).unwrap(), report);
    }

    #[test]
    fn a_long_report_loses_list_elements_and_says_so() {
        let tables: Vec<Value> = (0..5_000)
            .map(|number| json!({"name": format!("table_{number}"), "sha256": "0".repeat(64)}))
            .collect();
        let report = json!({"status": "succeeded", "id": "shop/20250131T040500Z-full", "tables": tables});
        let text = body(&notice(Some("shop"), RunStatus::Succeeded, report), BODY_BYTES);
        assert!(text.len() <= BODY_BYTES);
        let json: Value = serde_json::from_str(text.split_once("\n\n").unwrap().1).unwrap();
        assert_eq!(json["id"], "shop/20250131T040500Z-full");
        assert_eq!(json["tables"].as_array().unwrap().len(), 201);
        assert_eq!(json["tables"][200], "… and 4800 more");
        assert!(json["shortened"].is_string());
    }

    #[test]
    fn attributes_are_never_empty() {
        let failed = notice(Some("sh\u{1}op"), RunStatus::Failed(Code::PgDumpErr), json!({}));
        let text = |pairs: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
            pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
        };
        assert_eq!(
            attributes(&failed),
            text(&[
                ("status", "failed"),
                ("database", "sh?op"),
                ("kind", "full"),
                ("code", "PG_DUMP_ERR")
            ])
        );
        let good = notice(Some(""), RunStatus::Succeeded, json!({}));
        assert_eq!(attributes(&good), text(&[("status", "succeeded"), ("kind", "full")]));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "(?s:.){0,50}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 200, 30, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..30).prop_map(Value::from),
                proptest::collection::btree_map("\\PC{0,20}", inner, 0..30)
                    .prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_told_keeps_within_the_limits(
            database in proptest::option::of("(?s:.){0,120}"),
            summary in "(?s:.){0,300}",
            report in any_json(),
            limit in 500_usize..3_000,
        ) {
            let notice = Notice { summary, ..notice(database.as_deref(), RunStatus::Failed(Code::Internal), report) };
            let subject = subject(&notice);
            prop_assert!(subject.len() < 100 && subject.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert!(subject.starts_with("pgstow ") && subject.ends_with(" backup FAILED"));
            let body = body(&notice, limit);
            prop_assert!(body.len() <= limit);
            prop_assert!(!body.chars().any(|char| char.is_control() && char != '\n' && char != '\t'));
            prop_assert!(attributes(&notice).iter().all(|(_, value)| !value.is_empty()));
        }
    }
}
