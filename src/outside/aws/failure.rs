//! The SDK's errors as errors of pgstow.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::causes::causes;
use super::credentials::credentials_error;
use super::proxy::{self, BEHIND_PROXY};
use super::slow_down;
use crate::error::{Code, Error};

/// The service's own code for a failure (`NoSuchBucket`), or one derived from the status if the answer has no body,
/// as for HEAD requests.
pub fn service_code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    let SdkError::ServiceError(service) = error else {
        return None;
    };
    match service.err().code() {
        Some("Forbidden") => Some("AccessDenied"),
        Some(code) => Some(code),
        None => match service.raw().status().as_u16() {
            301 | 307 | 308 => Some("PermanentRedirect"),
            400 => Some("BadRequest"),
            401 | 403 => Some("AccessDenied"),
            404 => Some("NotFound"),
            412 => Some("PreconditionFailed"),
            429 => Some("TooManyRequests"),
            500 => Some("InternalError"),
            501 => Some("NotImplemented"),
            503 => Some("ServiceUnavailable"),
            _ => None,
        },
    }
}

/// Our error for a failed request. `what` says what pgstow tried to do, without a colon at its end: `cannot write
/// shop.dump to s3://bucket`.
pub fn error<E>(code: Code, what: &str, error: &SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let (why, hint) = match error {
        SdkError::ServiceError(service) => {
            let name = service_code(error).unwrap_or("unknown error");
            let status = service.raw().status().as_u16();
            let why = match service.err().message() {
                Some(message) if !message.is_empty() => format!("{name}: {message} (HTTP {status})"),
                _ => format!("{name} (HTTP {status})"),
            };
            (why, service_hint(name))
        }
        SdkError::TimeoutError(_) => ("no answer in time".to_owned(), Some(UNREACHABLE)),
        SdkError::DispatchFailure(failure) => {
            let cause = failure
                .as_connector_error()
                .map(|cause| cause as &(dyn StdError + 'static));
            transport(cause, failure.is_timeout(), failure.is_io())
        }
        SdkError::ConstructionFailure(_) => transport(StdError::source(error), false, false),
        SdkError::ResponseError(response) => (
            format!(
                "the answer could not be understood (HTTP {})",
                response.raw().status().as_u16()
            ),
            Some("check that the endpoint (AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3 and so on) is that of the service"),
        ),
        _ => ("the request failed".to_owned(), None),
    };
    let ours = Error::new(code, format!("{what}: {why}"));
    match hint {
        Some(hint) => ours.hint(hint),
        None => ours,
    }
}

const UNREACHABLE: &str = "check the endpoint (AWS_ENDPOINT_URL_S3 or another AWS_ENDPOINT_URL), DNS, and the \
                           network path: a private subnet needs a NAT or a VPC endpoint";
pub const BYTES_CHANGE: &str =
    "look for a faulty proxy or faulty memory on the way to the store, then run again: bytes change in transfer";

/// Codes that services use to refuse an action to this role or key.
pub(super) const REFUSALS: [&str; 7] = [
    "AccessDenied",
    "AccessDeniedException",
    "AllAccessDisabled",
    "AuthorizationError",
    "AuthorizationErrorException",
    "KMSAccessDenied",
    "KMSAccessDeniedException",
];

fn service_hint(name: &str) -> Option<&'static str> {
    Some(match name {
        "NoSuchBucket" => "create the bucket, or correct --store",
        name if REFUSALS.contains(&name) => {
            "allow the action to this role or key: in its own policy, and in the policy of the bucket, secret, topic or KMS key"
        }
        "InvalidAccessKeyId" | "InvalidClientTokenId" | "UnrecognizedClientException" => {
            "check AWS_ACCESS_KEY_ID, AWS_SESSION_TOKEN and the endpoint: the service does not know this access \
             key id"
        }
        "SignatureDoesNotMatch" | "InvalidSignatureException" => {
            "check AWS_SECRET_ACCESS_KEY: it does not belong to this access key id"
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            "get new credentials, or let the task use its role: the session's credentials have expired"
        }
        "InvalidToken" => {
            "give access key, secret and token (AWS_SESSION_TOKEN) of one session: this token belongs to another \
             key, partition or region"
        }
        "RequestTimeTooSkewed" | "RequestExpired" => "correct this machine's clock",
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            "set AWS_REGION to the bucket's region"
        }
        name if matches!(name, "InternalError" | "InternalFailure" | "ServiceUnavailable")
            || slow_down::CODES.contains(&name) =>
        {
            "check the service's health, then run again: it kept failing after all retries"
        }
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => BYTES_CHANGE,
        "NotImplemented" => {
            "set BACKUP_S3_CHECKSUMS=when_required if the endpoint does not support the checksums, or \
             BACKUP_S3_TAGGING=off if it does not support object tags"
        }
        "KMS.DisabledException" | "KMS.NotFoundException" | "KMS.KMSInvalidStateException" => {
            "check the KMS key and the role's kms:GenerateDataKey and kms:Decrypt on it"
        }
        _ => return None,
    })
}

/// Whether a request was not sent because there were no credentials to sign it with.
pub fn lacks_credentials(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<CredentialsError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Why a request did not reach the service, from the error's chain of causes.
fn transport(cause: Option<&(dyn StdError + 'static)>, timeout: bool, io: bool) -> (String, Option<&'static str>) {
    let mut next = cause;
    while let Some(error) = next {
        if let Some(credentials) = error.downcast_ref::<CredentialsError>() {
            let (why, hint) = credentials_error(credentials);
            return (why, Some(hint));
        }
        next = error.source();
    }
    let causes = causes(cause);
    // A reader can act on the innermost cause ("Connection refused").
    let innermost = causes.last().map_or("", String::as_str).trim();
    let why = if causes.iter().any(|cause| cause.contains("dns error")) {
        format!("the endpoint's name cannot be resolved: {innermost}")
    } else if causes.iter().any(|cause| cause.contains("InvalidContentType")) {
        let hint = "the endpoint does not speak TLS: begin it with http://, or give its TLS port";
        return ("TLS failed: the answer is not TLS".to_owned(), Some(hint));
    } else if causes.iter().any(|cause| cause.contains("certificate")) {
        let hint = "the server's certificate is not trusted: check the endpoint's name and this machine's CA certificates, or name \
             its authority in AWS_CA_BUNDLE";
        return (format!("TLS failed: {innermost}"), Some(hint));
    } else if causes.iter().any(|cause| cause.contains("region")) && !io {
        return (innermost.to_owned(), Some("set AWS_REGION"));
    } else if timeout {
        "no connection in time".to_owned()
    } else if io && innermost.is_empty() {
        "the connection broke".to_owned()
    } else {
        innermost.to_owned()
    };
    match proxy::on_the_way(cause) {
        Some(proxy) => (format!("{why}, by way of the proxy {proxy}"), Some(BEHIND_PROXY)),
        None => (why, Some(UNREACHABLE)),
    }
}
