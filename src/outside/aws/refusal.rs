//! Requests that AWS refuses to a role or key: finds the statement that the policy lacks.

use std::error::Error as StdError;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::failure::REFUSALS;
use super::{error, service_code};
use crate::error::{Code, Error};

/// Whether the service refuses the action to this role or key.
fn is_refusal<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    service_code(error).is_some_and(|name| REFUSALS.contains(&name))
}

/// The statement of a policy that allows these actions.
pub fn statement(actions: &[&str], resource: &str) -> String {
    let action = match actions {
        [one] => format!("\"{one}\""),
        several => format!("[\"{}\"]", several.join("\", \"")),
    };
    format!(r#"{{"Effect": "Allow", "Action": {action}, "Resource": "{resource}"}}"#)
}

/// As [`super::error`], for a request that needs these permissions: if AWS refuses it, the hint is the statement to
/// add. The permission that AWS names (it may be one of the KMS key) takes precedence over those that we asked for.
pub fn error_needing<E>(
    code: Code,
    what: &str,
    failed: &SdkError<E, HttpResponse>,
    actions: &[&str],
    resource: &str,
) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let ours = error(code, what, failed);
    if !is_refusal(failed) {
        return ours;
    }
    let told = failed
        .as_service_error()
        .and_then(|service| lacking(service.message()?));
    let statement = match told {
        Some((action, resource)) => statement(&[action], resource),
        None => statement(actions, resource),
    };
    ours.hint(format!(
        "allow the action to this role or key: {statement}; and check that no policy of the bucket, secret, topic or KMS \
         key denies it"
    ))
}

/// The action and resource that AWS's refusal names: `… is not authorized to perform: s3:PutObject on resource:
/// "arn:aws:s3:::…" because …`.
fn lacking(message: &str) -> Option<(&str, &str)> {
    let (_, rest) = message.split_once("not authorized to perform: ")?;
    let (action, rest) = rest.split_once(" on resource: ")?;
    let resource = rest.split_whitespace().next()?.trim_matches(['"', ',', '.']);
    let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"');
    (plain(action) && plain(resource)).then_some((action, resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_aws_names_what_is_lacking() {
        let told = "User: arn:aws:sts::1:assumed-role/r/f is not authorized to perform: kms:GenerateDataKey on resource: \
                    arn:aws:kms:us-east-1:1:key/k because no identity-based policy allows it";
        assert_eq!(
            lacking(told),
            Some(("kms:GenerateDataKey", "arn:aws:kms:us-east-1:1:key/k"))
        );
        let quoted = "User: u is not authorized to perform: s3:PutObject on resource: \"arn:aws:s3:::b/p/x\" because";
        assert_eq!(lacking(quoted), Some(("s3:PutObject", "arn:aws:s3:::b/p/x")));
        assert_eq!(lacking("Access Denied."), None);
        assert_eq!(lacking("not authorized to perform: a\"b on resource: c"), None);
    }
}
