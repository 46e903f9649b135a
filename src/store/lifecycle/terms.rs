//! Converts rules between S3's form and ours.

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleAndOperator,
    LifecycleRuleFilter, NoncurrentVersionExpiration, Tag, Transition, TransitionStorageClass,
};
use jiff::Timestamp;

use crate::error::Result;
use crate::store::Rule;
use crate::store::bucket::build;

pub(super) fn filter_prefix(rule: &LifecycleRule) -> &str {
    let filter = rule.filter();
    filter
        .and_then(|filter| filter.prefix())
        .or_else(|| filter.and_then(|filter| filter.and()?.prefix()))
        .or_else(|| {
            #[allow(deprecated)] // written by older tools, and still in force
            rule.prefix()
        })
        .unwrap_or_default()
}

fn days(days: u32) -> i32 {
    i32::try_from(days).unwrap_or(i32::MAX)
}

pub(super) fn to_sdk(rule: &Rule) -> Result<LifecycleRule> {
    let tag = match &rule.tag {
        Some((key, value)) => Some(build(Tag::builder().key(key).value(value).build())?),
        None => None,
    };
    let filter = LifecycleRuleFilter::builder();
    let filter = match tag {
        None => filter.prefix(&rule.prefix),
        Some(tag) if rule.prefix.is_empty() => filter.tag(tag),
        Some(tag) => filter.and(
            LifecycleRuleAndOperator::builder()
                .prefix(&rule.prefix)
                .tags(tag)
                .build(),
        ),
    };
    let expiration = rule
        .expire_days
        .map(|after| LifecycleExpiration::builder().days(days(after)).build());
    let noncurrent = rule.noncurrent_days.map(|after| {
        NoncurrentVersionExpiration::builder()
            .noncurrent_days(days(after))
            .build()
    });
    let uploads = rule.abort_uploads_days.map(|after| {
        AbortIncompleteMultipartUpload::builder()
            .days_after_initiation(days(after))
            .build()
    });
    let built = LifecycleRule::builder()
        .id(&rule.id)
        .status(if rule.enabled {
            ExpirationStatus::Enabled
        } else {
            ExpirationStatus::Disabled
        })
        .filter(filter.build())
        .set_expiration(expiration)
        .set_noncurrent_version_expiration(noncurrent)
        .set_abort_incomplete_multipart_upload(uploads)
        .build();
    build(built)
}

pub(super) fn from_sdk(rule: &LifecycleRule) -> Rule {
    let filter = rule.filter();
    let and = filter.and_then(|filter| filter.and());
    let single = filter.and_then(|filter| filter.tag());
    let mut tags = single
        .into_iter()
        .chain(and.into_iter().flat_map(LifecycleRuleAndOperator::tags));
    let tag = tags.next();
    let mut limits: Vec<String> = tags.map(|tag| format!("tagged {}={}", tag.key, tag.value)).collect();
    let larger = filter
        .and_then(LifecycleRuleFilter::object_size_greater_than)
        .or_else(|| and.and_then(LifecycleRuleAndOperator::object_size_greater_than));
    let smaller = filter
        .and_then(LifecycleRuleFilter::object_size_less_than)
        .or_else(|| and.and_then(LifecycleRuleAndOperator::object_size_less_than));
    for (word, size) in [("larger", larger), ("smaller", smaller)] {
        limits.extend(
            size.filter(|bytes| *bytes > 0)
                .map(|bytes| format!("{word} than {bytes} bytes")),
        );
    }
    let count = |days: Option<i32>| days.and_then(|days| u32::try_from(days).ok());
    let date = rule.expiration().and_then(|expiration| expiration.date());
    Rule {
        id: rule.id().unwrap_or_default().to_owned(),
        enabled: *rule.status() == ExpirationStatus::Enabled,
        prefix: filter_prefix(rule).to_owned(),
        tag: tag.map(|tag| (tag.key.clone(), tag.value.clone())),
        limits,
        expire_days: count(rule.expiration().and_then(LifecycleExpiration::days)),
        expire_date: date.map(|date| match Timestamp::from_second(date.secs()) {
            Ok(at) => at.to_string(),
            Err(_) => "a date".to_owned(),
        }),
        noncurrent_days: count(
            rule.noncurrent_version_expiration()
                .and_then(NoncurrentVersionExpiration::noncurrent_days),
        ),
        abort_uploads_days: count(
            rule.abort_incomplete_multipart_upload()
                .and_then(AbortIncompleteMultipartUpload::days_after_initiation),
        ),
        archive: rule.transitions().iter().find_map(archive),
    }
}

/// The target of a transition, if objects there cannot be read at once.
fn archive(transition: &Transition) -> Option<String> {
    let class = transition.storage_class()?;
    if !matches!(
        class,
        TransitionStorageClass::Glacier | TransitionStorageClass::DeepArchive
    ) {
        return None;
    }
    let when = match (transition.days(), transition.date()) {
        (Some(1), _) => "after 1 day".to_owned(),
        (Some(days), _) => format!("after {days} days"),
        (None, Some(date)) => match Timestamp::from_second(date.secs()) {
            Ok(at) => format!("from {at} on"),
            Err(_) => "from a date on".to_owned(),
        },
        (None, None) => "at once".to_owned(),
    };
    Some(format!("to {class} {when}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_survives_the_way_to_the_bucket_and_back() {
        let daily = Rule {
            id: "pgstow-daily".to_owned(),
            enabled: true,
            prefix: "team/".to_owned(),
            tag: Some(("pgstow-tier".to_owned(), "daily".to_owned())),
            limits: Vec::new(),
            expire_days: Some(30),
            expire_date: None,
            noncurrent_days: Some(1),
            abort_uploads_days: None,
            archive: None,
        };
        let everywhere = Rule {
            prefix: String::new(),
            ..daily.clone()
        };
        let uploads = Rule {
            id: "pgstow-uploads".to_owned(),
            enabled: true,
            prefix: "team/".to_owned(),
            tag: None,
            limits: Vec::new(),
            expire_days: None,
            expire_date: None,
            noncurrent_days: None,
            abort_uploads_days: Some(2),
            archive: None,
        };
        for rule in [daily, everywhere, uploads] {
            assert_eq!(from_sdk(&to_sdk(&rule).unwrap()), rule);
        }
    }

    #[test]
    fn a_transition_counts_where_it_leads_to_an_archive() {
        let by = |class: TransitionStorageClass| archive(&Transition::builder().days(1).storage_class(class).build());
        assert_eq!(
            by(TransitionStorageClass::DeepArchive).as_deref(),
            Some("to DEEP_ARCHIVE after 1 day")
        );
        assert_eq!(
            by(TransitionStorageClass::Glacier).as_deref(),
            Some("to GLACIER after 1 day")
        );
        assert_eq!(by(TransitionStorageClass::GlacierIr), None);
        assert_eq!(by(TransitionStorageClass::StandardIa), None);
    }
}
