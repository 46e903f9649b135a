//! The bucket's own expiry: tags, and rules that use them.

mod terms;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_s3::types::{BucketLifecycleConfiguration, LifecycleRule, TransitionDefaultMinimumObjectSize};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use self::terms::{filter_prefix, from_sdk, to_sdk};
use super::bucket::build;
use super::s3::S3;
use super::trouble::names;
use super::{Deleted, Lifecycle, Rule, Rules, TagKeeping, is_ours};
use crate::error::{Code, Error, Result};
use crate::outside::aws;

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
                rules.foreign.push(from_sdk(&rule));
            }
        }
        Ok(rules)
    }

    async fn install_rules(&self, ours: &[Rule]) -> Result<()> {
        let installed = self.installed().await?;
        let mut rules: Vec<LifecycleRule> = installed
            .rules
            .iter()
            // A rule with one of our new ids cannot stay beside the new one, whatever it filters by.
            .filter(|rule| !self.is_ours(rule) && !ours.iter().any(|new| rule.id() == Some(&new.id)))
            .cloned()
            .collect();
        let stay: Vec<Rule> = rules.iter().map(from_sdk).collect();
        for rule in ours {
            rules.push(to_sdk(rule)?);
        }
        const FAILED: &str = "install lifecycle rules";
        self.configure(rules, installed.minimum_size.clone(), FAILED).await?;
        // If a store changed the rules that it accepted, backups would pile up or be lost.
        let former = all_from_sdk(&installed.rules);
        let url = &self.bucket.url;
        match self
            .shown(&former, |shown| altered(ours, &stay, shown).is_empty())
            .await
        {
            Shown::AsWanted => Ok(()),
            Shown::Others(others) => Err(self.put_back(installed, &altered(ours, &stay, &others), &others).await),
            Shown::Former => {
                let text = format!(
                    "{url} accepted the lifecycle rules, but still shows the former ones after {} s",
                    SETTLING.as_secs()
                );
                Err(Error::new(Code::Store, text).hint(
                    "nothing was undone: run `pgstow retention apply` again in some minutes, which compares them again",
                ))
            }
            Shown::Unread(error) => {
                let text = format!(
                    "{url} accepted the lifecycle rules, but they could not be read again: {}",
                    error.message()
                );
                let hint = "nothing was undone: run `pgstow retention apply` again, which compares them again";
                Err(Error::new(Code::Store, text).hint(hint))
            }
        }
    }

    fn prefix(&self) -> &str {
        &self.bucket.prefix
    }
}

/// How long a store may still show the former rules.
const SETTLING: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The rules that a store shows after a change.
enum Shown {
    AsWanted,
    /// The former rules, for the whole time: the answers may be outdated.
    Former,
    /// Neither the former rules nor the new ones.
    Others(Vec<Rule>),
    /// The last answer was an error, which says nothing about the rules.
    Unread(Error),
}

/// A rule that a store has changed into another.
struct Altered {
    id: String,
    what: String,
}

/// The rules that a store has changed or dropped.
fn altered(ours: &[Rule], stay: &[Rule], shown: &[Rule]) -> Vec<Altered> {
    let tells = |wanted: &Rule| {
        let what = match shown.iter().find(|rule| rule.id == wanted.id) {
            Some(rule) if rule == wanted => return None,
            Some(rule) => format!(
                "{} {}, and was to be one that {}",
                rule.id,
                rule.effect(),
                wanted.effect()
            ),
            None => format!("{} is not there, which {}", wanted.id, wanted.effect()),
        };
        let id = wanted.id.clone();
        Some(Altered { id, what })
    };
    let named = |rule: &&Rule| !rule.id.is_empty();
    ours.iter().chain(stay.iter().filter(named)).filter_map(tells).collect()
}

/// Compares the rules in any order.
fn are_the_same(some: &[Rule], others: &[Rule]) -> bool {
    some.len() == others.len() && some.iter().all(|rule| others.contains(rule))
}

fn all_from_sdk(rules: &[LifecycleRule]) -> Vec<Rule> {
    rules.iter().map(from_sdk).collect()
}

struct Installed {
    rules: Vec<LifecycleRule>,
    minimum_size: Option<TransitionDefaultMinimumObjectSize>,
}

impl S3 {
    /// Replaces all rules of the bucket by these.
    async fn configure(
        &self,
        rules: Vec<LifecycleRule>,
        minimum_size: Option<TransitionDefaultMinimumObjectSize>,
        failed: &str,
    ) -> Result<()> {
        let bucket = &self.bucket;
        if rules.is_empty() {
            // S3 refuses a configuration without rules; removing all of them is another request.
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
            // If it were left out, the default would apply to the foreign rules too.
            .set_transition_default_minimum_object_size(minimum_size)
            .customize()
            .interceptor(bucket.checksum_that_is_known())
            .send()
            .await
            .map_err(|error| refused_rules(&error, bucket.error(failed, &error)))?;
        Ok(())
    }

    /// The rules that the store shows. For a while it may also show the former rules, alternately. So before the time
    /// is over, only a set that is neither the former nor the wanted one, twice in a row, counts as a result.
    async fn shown(&self, former: &[Rule], is_wanted: impl Fn(&[Rule]) -> bool) -> Shown {
        let deadline = Instant::now() + SETTLING;
        let mut pause = FIRST_PAUSE;
        let mut before: Option<Vec<Rule>> = None;
        loop {
            let seen = match self.installed().await {
                Err(error) => Shown::Unread(error),
                Ok(installed) => {
                    let rules = all_from_sdk(&installed.rules);
                    if is_wanted(&rules) {
                        return Shown::AsWanted;
                    }
                    if are_the_same(&rules, former) {
                        Shown::Former
                    } else {
                        Shown::Others(rules)
                    }
                }
            };
            let again = match (&seen, &before) {
                (Shown::Others(rules), Some(before)) => are_the_same(rules, before),
                _ => false,
            };
            if again || Instant::now() + pause > deadline {
                return seen;
            }
            before = match seen {
                Shown::Others(rules) => Some(rules),
                _ => None,
            };
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Installs the former rules again, and returns the error that gives the reason. `shown` is what the store made
    /// of ours.
    async fn put_back(&self, before: Installed, made: &[Altered], shown: &[Rule]) -> Error {
        let were = all_from_sdk(&before.rules);
        let back = self.configure(before.rules, before.minimum_size, "put back the former lifecycle rules");
        let url = &self.bucket.url;
        let told: Vec<&str> = made.iter().map(|rule| rule.what.as_str()).collect();
        let what = format!(
            "{url} accepted the lifecycle rules, but changed them: {}",
            told.join("; ")
        );
        let (now, taken) = match back.await {
            Ok(()) => (self.shown(shown, |now| are_the_same(now, &were)).await, true),
            Err(error) => (Shown::Unread(error), false),
        };
        if matches!(now, Shown::AsWanted) {
            return self.back_again(&what, &were);
        }
        let mut ids: Vec<String> = match &now {
            Shown::Others(now) => altered(&were, &[], now).into_iter().map(|rule| rule.id).collect(),
            _ => Vec::new(),
        };
        ids.extend(made.iter().map(|rule| rule.id.clone()));
        ids.sort();
        ids.dedup();
        let text = if taken && matches!(now, Shown::Unread(_)) {
            format!("{what}; the former rules were installed again, but could not be read to check them")
        } else {
            format!("{what}; THE FORMER RULES ARE NOT BACK: the rules that the store shows are in force")
        };
        let error = Error::new(Code::Store, text).hint(format!(
            "check the rules at once: aws s3api get-bucket-lifecycle-configuration --bucket {name}; correct or \
             remove the rules {ids}, and keep all the others: aws s3api put-bucket-lifecycle-configuration \
             --bucket {name} --lifecycle-configuration file://…",
            name = self.bucket.name,
            ids = ids.join(", ")
        ));
        match now {
            Shown::Unread(second) => error.also(second),
            _ => error,
        }
    }

    /// The error after the former rules are in force again. An earlier run may have left rules among them that expire
    /// everything.
    fn back_again(&self, what: &str, were: &[Rule]) -> Error {
        const INSTEAD: &str = "this store cannot keep such rules: apply the retention there with `pgstow prune \
                               --allow-delete` after the backups";
        let takes = |rule: &&Rule| rule.takes_the_last_of(&self.bucket.prefix);
        let harmful: Vec<&Rule> = were.iter().filter(takes).collect();
        if harmful.is_empty() {
            let were = if were.is_empty() {
                "there are none again"
            } else {
                "the former rules are back"
            };
            return Error::new(Code::Store, format!("{what}; {were}")).hint(INSTEAD);
        }
        let told: Vec<String> = harmful
            .iter()
            .map(|rule| format!("the rule {} {}, the last good backup too", rule.id, rule.effect()))
            .collect();
        let ids: Vec<&str> = harmful.iter().map(|rule| rule.id.as_str()).collect();
        let text = format!(
            "{what}; the former rules are back, and HARM THE BACKUPS: {}",
            told.join("; ")
        );
        Error::new(Code::Store, text).hint(format!(
            "remove {ids} at once, and keep all the other rules: aws s3api get-bucket-lifecycle-configuration \
             --bucket {name}, then aws s3api put-bucket-lifecycle-configuration --bucket {name} \
             --lifecycle-configuration file://…; {INSTEAD}",
            ids = ids.join(", "),
            name = self.bucket.name
        ))
    }

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
            Err(error) => Err(without_rules(&error, bucket.error("read the lifecycle rules", &error))),
        }
    }

    /// Ours by name and by prefix: the rules of another store in the same bucket are not ours.
    fn is_ours(&self, rule: &LifecycleRule) -> bool {
        is_ours(rule.id().unwrap_or_default()) && filter_prefix(rule) == self.bucket.prefix
    }
}

/// Adds a hint if the store has no lifecycle rules at all: it says so, or cannot read a request without rules.
fn without_rules<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>, told: Error) -> Error {
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    let unknown = matches!(
        aws::service_code(error),
        Some("NotImplemented" | "MethodNotAllowed" | "UnsupportedOperation")
    );
    if unknown || matches!(status, Some(405 | 501)) || is_about_rules(error) {
        return told.hint(
            "this store has no lifecycle rules: apply the retention there with `pgstow prune --allow-delete` after the \
             backups",
        );
    }
    told
}

/// Adds a hint if the store refuses the rules in a request: it may have none, or not such rules.
fn refused_rules<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>, told: Error) -> Error {
    if is_about_rules(error) {
        return told.hint(
            "change the retention as the store's answer demands (`pgstow retention show` prints the rules, which \
             S3 accepts); if this store has no rules that go by a tag, apply the retention there with `pgstow \
             prune --allow-delete` after the backups",
        );
    }
    without_rules(error, told)
}

/// Whether the request could not be read, and the answer gives no other reason than the rules.
fn is_about_rules<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    let code = aws::service_code(error);
    let named = || names(error, &["lifecycle", "rule", "filter"]);
    status == Some(400)
        && (code == Some("MalformedXML") || (matches!(code, Some("InvalidArgument" | "InvalidRequest")) && named()))
}
