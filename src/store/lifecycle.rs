//! The bucket's own expiry: tags, and the rules that go by them.

use async_trait::async_trait;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleAndOperator, LifecycleRuleFilter, NoncurrentVersionExpiration, Tag,
    TransitionDefaultMinimumObjectSize,
};

use super::bucket::build;
use super::s3::S3;
use super::{Deleted, Lifecycle, Rules, TagKeeping};
use crate::aws;
use crate::error::{Code, Error, Result};
use crate::retention::{self, Rule};

#[async_trait]
impl Lifecycle for S3 {
    async fn tags(&self, key: &str) -> Result<Option<Vec<(String, String)>>> {
        self.bucket.tags(key).await
    }

    async fn set_tags(&self, key: &str, tags: &[(String, String)]) -> Result<()> {
        if self.bucket.set_tags(key, tags).await? {
            return Ok(());
        }
        let what = format!("cannot tag {key} in {}: there is no such object", self.bucket.url);
        Err(Error::new(Code::Store, what))
    }

    async fn try_delete(&self, key: &str) -> Result<Deleted> {
        self.bucket.try_delete(key).await
    }

    fn keeping(&self) -> TagKeeping {
        self.bucket.tagging.keeping()
    }

    async fn rules(&self) -> Result<Rules> {
        let mut rules = Rules::default();
        for rule in self.installed().await?.rules {
            if self.is_ours(&rule) {
                rules.ours.push(from_sdk(&rule));
            } else {
                rules.foreign.push(rule.id.unwrap_or_default());
            }
        }
        Ok(rules)
    }

    async fn install_rules(&self, ours: &[Rule]) -> Result<()> {
        let installed = self.installed().await?;
        let mut rules: Vec<LifecycleRule> = installed
            .rules
            .into_iter()
            // A rule with one of our new ids cannot stay beside it, whatever it filters by.
            .filter(|rule| !self.is_ours(rule) && !ours.iter().any(|new| rule.id() == Some(&new.id)))
            .collect();
        for rule in ours {
            rules.push(to_sdk(rule)?);
        }
        let bucket = &self.bucket;
        let failed = "install lifecycle rules";
        if rules.is_empty() {
            // A configuration without rules is refused; having none is its own request.
            let delete = bucket.client.delete_bucket_lifecycle().bucket(&bucket.name);
            delete.send().await.map_err(|error| bucket.error(failed, &error))?;
            return Ok(());
        }
        let configuration = build(BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build())?;
        bucket
            .client
            .put_bucket_lifecycle_configuration()
            .bucket(&bucket.name)
            .lifecycle_configuration(configuration)
            // Left out, it would go back to the default for the foreign rules too.
            .set_transition_default_minimum_object_size(installed.minimum_size)
            .send()
            .await
            .map_err(|error| bucket.error(failed, &error))?;
        Ok(())
    }

    fn prefix(&self) -> &str {
        &self.bucket.prefix
    }
}

struct Installed {
    rules: Vec<LifecycleRule>,
    minimum_size: Option<TransitionDefaultMinimumObjectSize>,
}

impl S3 {
    async fn installed(&self) -> Result<Installed> {
        let bucket = &self.bucket;
        let request = bucket.client.get_bucket_lifecycle_configuration().bucket(&bucket.name);
        match request.send().await {
            Ok(answer) => Ok(Installed {
                minimum_size: answer.transition_default_minimum_object_size().cloned(),
                rules: answer.rules.unwrap_or_default(),
            }),
            Err(error) if aws::service_code(&error) == Some("NoSuchLifecycleConfiguration") => Ok(Installed {
                rules: Vec::new(),
                minimum_size: None,
            }),
            Err(error) => Err(bucket.error("read the lifecycle rules", &error)),
        }
    }

    /// Ours by name and by prefix: another store in the same bucket keeps its own rules.
    fn is_ours(&self, rule: &LifecycleRule) -> bool {
        retention::is_ours(rule.id().unwrap_or_default()) && filter_prefix(rule) == self.bucket.prefix
    }
}

fn filter_prefix(rule: &LifecycleRule) -> &str {
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

fn to_sdk(rule: &Rule) -> Result<LifecycleRule> {
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
        .status(ExpirationStatus::Enabled)
        .filter(filter.build())
        .set_expiration(expiration)
        .set_noncurrent_version_expiration(noncurrent)
        .set_abort_incomplete_multipart_upload(uploads)
        .build();
    build(built)
}

fn from_sdk(rule: &LifecycleRule) -> Rule {
    let filter = rule.filter();
    let tag = filter
        .and_then(|filter| filter.tag())
        .or_else(|| filter.and_then(|filter| filter.and()?.tags().first()));
    let count = |days: Option<i32>| days.and_then(|days| u32::try_from(days).ok());
    Rule {
        id: rule.id().unwrap_or_default().to_owned(),
        prefix: filter_prefix(rule).to_owned(),
        tag: tag.map(|tag| (tag.key.clone(), tag.value.clone())),
        expire_days: count(rule.expiration().and_then(LifecycleExpiration::days)),
        noncurrent_days: count(
            rule.noncurrent_version_expiration()
                .and_then(NoncurrentVersionExpiration::noncurrent_days),
        ),
        abort_uploads_days: count(
            rule.abort_incomplete_multipart_upload()
                .and_then(AbortIncompleteMultipartUpload::days_after_initiation),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_survives_the_way_to_the_bucket_and_back() {
        let daily = Rule {
            id: "pgstow-daily".to_owned(),
            prefix: "team/".to_owned(),
            tag: Some(("pgstow-tier".to_owned(), "daily".to_owned())),
            expire_days: Some(30),
            noncurrent_days: Some(1),
            abort_uploads_days: None,
        };
        let everywhere = Rule {
            prefix: String::new(),
            ..daily.clone()
        };
        let uploads = Rule {
            id: "pgstow-uploads".to_owned(),
            prefix: "team/".to_owned(),
            tag: None,
            expire_days: None,
            noncurrent_days: None,
            abort_uploads_days: Some(2),
        };
        for rule in [daily, everywhere, uploads] {
            assert_eq!(from_sdk(&to_sdk(&rule).unwrap()), rule);
        }
    }
}
