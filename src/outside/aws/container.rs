//! The credentials of a container: those of an ECS task, and of EKS's pod identity. The SDK does not say which variable led
//! to what failed.

use std::error::Error as StdError;
use std::fmt;

use aws_config::ecs::EcsCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_types::os_shim_internal::Env;

const ADDRESSES: [&str; 2] = [
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";

/// The SDK's own provider.
#[derive(Debug)]
pub(super) struct Container(pub EcsCredentialsProvider);

impl Container {
    async fn ask(&self) -> provider::Result {
        self.0.provide_credentials().await.map_err(|error| match error {
            // The next in the chain is asked.
            CredentialsError::CredentialsNotLoaded(_) => error,
            error => match OfContainer::of(&Env::real(), &error) {
                Some(ours) => CredentialsError::provider_error(ours),
                None => error,
            },
        })
    }
}

impl ProvideCredentials for Container {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.ask())
    }
}

/// What a variable of the container's names, and why it gave nothing.
#[derive(Debug)]
pub(super) struct OfContainer {
    variable: &'static str,
    value: String,
    why: String,
}

impl OfContainer {
    fn of(env: &Env, error: &CredentialsError) -> Option<Self> {
        let given = |variable: &'static str| {
            let value = env.get(variable).ok().filter(|value| !value.is_empty())?;
            Some((variable, value))
        };
        if let Some((variable, value)) = given(TOKEN_FILE)
            && let Err(error) = std::fs::File::open(&value)
        {
            let why = format!("cannot be read: {error}");
            return Some(Self { variable, value, why });
        }
        let (variable, value) = ADDRESSES.into_iter().find_map(given)?;
        let told = super::failure::causes(StdError::source(error));
        let why = match (error, told.last()) {
            (CredentialsError::ProviderTimedOut(_), _) => "does not answer in time".to_owned(),
            (_, Some(last)) => format!("gives no credentials: {last}"),
            (_, None) => "gives no credentials".to_owned(),
        };
        Some(Self { variable, value, why })
    }

    pub fn hint(&self) -> &'static str {
        if self.variable == TOKEN_FILE { TOKEN } else { ADDRESS }
    }
}

impl fmt::Display for OfContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} names {}, which {}", self.variable, self.value, self.why)
    }
}

impl StdError for OfContainer {}

const TOKEN: &str = "name the file that the platform mounts (EKS pod identity does so itself, by its association with the service \
                     account), or take the variable away";
const ADDRESS: &str = "the platform's agent answers there (ECS, EKS pod identity): look whether it runs, and whether this \
                       container reaches it; where credentials come from elsewhere, take the variable away";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_that_leads_nowhere_is_named() {
        let error = CredentialsError::provider_error("Connection refused (os error 111)");
        let address = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/x");
        let told = OfContainer::of(&Env::from_slice(&[address]), &error).unwrap();
        assert_eq!(
            told.to_string(),
            "AWS_CONTAINER_CREDENTIALS_FULL_URI names http://127.0.0.1:9/x, which gives no credentials: Connection refused \
             (os error 111)"
        );
        let token = (TOKEN_FILE, "/dev/null/none");
        let told = OfContainer::of(&Env::from_slice(&[address, token]), &error).unwrap();
        assert!(
            told.to_string().contains("names /dev/null/none, which cannot be read"),
            "{told}"
        );
        assert_eq!(told.hint(), TOKEN);
        assert!(OfContainer::of(&Env::from_slice(&[]), &error).is_none());
    }
}
