//! RDS's IAM login: instead of a password, a token, which is a request for `rds-db:connect`, signed with AWS
//! credentials (SigV4, in the query) and written without its scheme. A token is valid for fifteen minutes, so each
//! connection gets its own.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::Region;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;

use crate::error::{Code, Error, Result};
use crate::outside::aws;
use crate::postgres::{ConnectionInfo, Login, Provider};

/// The longest life that RDS accepts.
const LIFE: Duration = Duration::from_secs(900);

/// The characters that SigV4 escapes.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub(super) const REFUSED: &str = "GRANT rds_iam to the role; turn IAM authentication on for the instance; allow rds-db:connect \
                                  on arn:aws:rds-db:<region>:<account>:dbuser:<resource id>/<role> to the task's role; and \
                                  connect by the endpoint's own name, not by an alias";

/// Makes tokens from AWS credentials, which it asks for each time too.
#[derive(Debug)]
pub struct IamLogin {
    credentials: SharedCredentialsProvider,
    /// Used if the host's name does not contain the region.
    region: Option<Region>,
}

impl IamLogin {
    pub fn new(credentials: SharedCredentialsProvider, region: Option<Region>) -> Self {
        Self { credentials, region }
    }
}

#[async_trait]
impl Provider for IamLogin {
    fn is_short_lived(&self) -> bool {
        true
    }

    async fn login(&self, info: &ConnectionInfo) -> Result<Login> {
        let place = RdsLogin::of(info)?;
        let region = region_of(place.host)
            .or_else(|| self.region.as_ref().map(|region| region.as_ref().to_owned()))
            .ok_or_else(|| {
                Error::config("IAM login: the region is not known").hint("set AWS_REGION to the database's region")
            })?;
        let credentials = self.credentials.provide_credentials().await.map_err(|error| {
            let (why, hint) = aws::credentials_error(&error);
            Error::new(Code::Auth, format!("cannot make a token for IAM login: {why}")).hint(hint)
        })?;
        let token = token(&place, &region, &credentials.into(), SystemTime::now())
            .map_err(|error| Error::internal("a token for IAM login could not be signed").source(error))?;
        Ok(Login {
            user: None,
            password: Some(SecretString::from(token)),
        })
    }
}

/// What a token is for.
struct RdsLogin<'a> {
    host: &'a str,
    port: u16,
    user: &'a str,
}

impl<'a> RdsLogin<'a> {
    fn of(info: &'a ConnectionInfo) -> Result<Self> {
        if info.is_socket() {
            return Err(
                Error::config("IAM login needs TLS, and a local socket has none").hint("give the endpoint's name")
            );
        }
        match (&info.host, info.port, &info.user) {
            (Some(host), Some(port), Some(user)) => Ok(Self { host, port, user }),
            _ => Err(Error::internal(
                "a token was requested before host, port and user were known",
            )),
        }
    }
}

/// The region in an RDS endpoint: `shop.abc123.eu-west-1.rds.amazonaws.com`.
fn region_of(host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').collect();
    let at = labels.iter().rposition(|label| *label == "rds")?;
    let ours = labels.get(at + 1).is_some_and(|label| *label == "amazonaws");
    (ours && at > 1).then(|| labels[at - 1].to_owned())
}

fn token(
    place: &RdsLogin<'_>,
    region: &str,
    identity: &Identity,
    now: SystemTime,
) -> std::result::Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let host = match place.host.contains(':') {
        true => format!("[{}]", place.host),
        false => place.host.to_owned(),
    };
    let user = utf8_percent_encode(place.user, ESCAPED);
    let url = format!("https://{host}:{}/?Action=connect&DBUser={user}", place.port);
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFE);
    let parameters = v4::SigningParams::builder()
        .identity(identity)
        .region(region)
        .name("rds-db")
        .time(now)
        .settings(settings)
        .build()?
        .into();
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]))?;
    let (instructions, _) = sign(request, &parameters)?.into_parts();
    let mut token = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).to_owned();
    for (name, value) in instructions.params() {
        token.push_str(&format!("&{name}={}", utf8_percent_encode(value, ESCAPED)));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;

    use super::*;

    /// Python's botocore 1.43 gives the same signature for the same place, time and keys (`generate_db_auth_token`).
    #[test]
    fn a_token_is_what_the_documentation_says() {
        let place = RdsLogin {
            host: "shop.abc123.eu-west-1.rds.amazonaws.com",
            port: 5432,
            user: "back up",
        };
        let credentials = Credentials::new("AKIDEXAMPLE", "secret/key", Some("a+token/=".to_owned()), None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let token = token(&place, "eu-west-1", &credentials.into(), now).unwrap();
        let (head, rest) = token.split_once('?').unwrap();
        assert_eq!(head, "shop.abc123.eu-west-1.rds.amazonaws.com:5432/");
        let mut parts: Vec<&str> = rest.split('&').collect();
        parts.sort_unstable();
        let signature = parts
            .iter()
            .position(|part| part.starts_with("X-Amz-Signature="))
            .unwrap();
        assert_eq!(
            parts.remove(signature),
            "X-Amz-Signature=acc32bf02e64a7fe993820919c242b9a8c7ef7fb2d6fa76d2ff99832d2cc0598"
        );
        assert_eq!(
            parts,
            [
                "Action=connect",
                "DBUser=back%20up",
                "X-Amz-Algorithm=AWS4-HMAC-SHA256",
                "X-Amz-Credential=AKIDEXAMPLE%2F20231114%2Feu-west-1%2Frds-db%2Faws4_request",
                "X-Amz-Date=20231114T221320Z",
                "X-Amz-Expires=900",
                "X-Amz-Security-Token=a%2Btoken%2F%3D",
                "X-Amz-SignedHeaders=host",
            ]
        );
    }

    #[test]
    fn an_endpoint_names_its_region() {
        for (host, region) in [
            ("shop.abc123.eu-west-1.rds.amazonaws.com", Some("eu-west-1")),
            ("Shop.cluster-ro-abc123.US-EAST-2.rds.amazonaws.com", Some("us-east-2")),
            ("p.proxy-abc.cn-north-1.rds.amazonaws.com.cn", Some("cn-north-1")),
            ("rds.example.com", None),
            ("db.rds.example.com", None),
            ("10.0.0.7", None),
        ] {
            assert_eq!(region_of(host).as_deref(), region, "{host}");
        }
    }
}
