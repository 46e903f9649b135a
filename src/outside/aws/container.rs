//! The credentials of a container: of an ECS task, or of EKS pod identity. The SDK does not say which variable led to
//! the failure.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use aws_config::ecs::EcsCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_types::os_shim_internal::Env;

use crate::run::named_file;

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
            // The chain asks the next provider.
            CredentialsError::CredentialsNotLoaded(_) => error,
            error => OfContainer::of(&Env::real(), error),
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

/// The value of a variable of the container, and why it gave no credentials.
#[derive(Debug)]
pub(super) struct OfContainer {
    variable: &'static str,
    value: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Unread(io::Error),
    Failed(CredentialsError),
}

impl OfContainer {
    /// The error, with the variable that leads to it if one is set.
    fn of(env: &Env, error: CredentialsError) -> CredentialsError {
        let given = |variable: &'static str| {
            let value = env.get(variable).ok().filter(|value| !value.is_empty())?;
            Some((variable, value))
        };
        if let Some((variable, value)) = given(TOKEN_FILE)
            && let Err(error) = named_file::open(Path::new(&value))
        {
            let why = Why::Unread(error);
            return CredentialsError::provider_error(Self { variable, value, why });
        }
        match ADDRESSES.into_iter().find_map(given) {
            Some((variable, value)) => CredentialsError::provider_error(Self {
                variable,
                value,
                why: Why::Failed(error),
            }),
            None => error,
        }
    }

    pub fn hint(&self) -> &'static str {
        if self.variable == TOKEN_FILE { TOKEN } else { ADDRESS }
    }
}

impl fmt::Display for OfContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} names {}, which ", self.variable, self.value)?;
        match &self.why {
            Why::Unread(error) => write!(f, "cannot be read: {error}"),
            Why::Failed(CredentialsError::ProviderTimedOut(_)) => f.write_str("does not answer in time"),
            Why::Failed(_) => f.write_str("gives no credentials"),
        }
    }
}

impl StdError for OfContainer {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.why {
            Why::Unread(_) => None,
            Why::Failed(error) => error.source(),
        }
    }
}

const TOKEN: &str = "name the file that the platform mounts (EKS pod identity does that itself, by its association \
                     with the service account), or remove the variable";
const ADDRESS: &str = "check that the platform's agent (ECS, EKS pod identity) runs at that address, and that this \
                       container reaches it; if credentials come from elsewhere, remove the variable";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_that_leads_nowhere_is_named() {
        let told = |variables: &[(&str, &str)]| {
            let error = CredentialsError::provider_error("Connection refused (os error 111)");
            OfContainer::of(&Env::from_slice(variables), error)
        };
        let of = |error: &CredentialsError| {
            let ours = error.source().and_then(|source| source.downcast_ref::<OfContainer>());
            ours.map(|ours| (ours.to_string(), ours.hint()))
        };
        let address = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/x");
        let (text, hint) = of(&told(&[address])).unwrap();
        assert_eq!(
            text,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI names http://127.0.0.1:9/x, which gives no credentials"
        );
        assert_eq!(hint, ADDRESS);
        let (text, hint) = of(&told(&[address, (TOKEN_FILE, "/dev/null/none")])).unwrap();
        assert!(text.contains("names /dev/null/none, which cannot be read"), "{text}");
        assert_eq!(hint, TOKEN);
        assert!(of(&told(&[])).is_none());
        // Opening it in another way would wait for ever.
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        let (text, hint) = of(&told(&[address, (TOKEN_FILE, fifo.to_str().unwrap())])).unwrap();
        assert!(text.ends_with("cannot be read: it is not a regular file"), "{text}");
        assert_eq!(hint, TOKEN);
    }
}
