//! The HTTP client for AWS's services: it uses the proxy that the environment names, and the certificate authorities
//! that AWS's own tools would use.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_runtime::env_config::file::EnvConfigFiles;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_types::os_shim_internal::{Env, Fs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::proxy::{self, Proxies};
use super::settings;
use crate::error::{Error, Result};
use crate::run::named_file;

/// The public certificate authorities together have about 300 KiB.
const LONGEST: u64 = 16 << 20;

/// HTTPS_PROXY, HTTP_PROXY and NO_PROXY work as in curl.
pub(super) async fn client(settings: &settings::Aws) -> Result<SharedHttpClient> {
    let context = match bundle(settings).await {
        Some(Bundle { path, name }) => trusting(&path, name)?,
        None => TlsContext::default(),
    };
    Ok(SharedHttpClient::new(Ways {
        straight: by(context.clone(), ProxyConfig::disabled),
        proxied: by(context, ProxyConfig::from_env),
        proxies: Arc::new(Proxies::of(|name| Env::real().get(name).ok())),
    }))
}

fn by(context: TlsContext, proxy: fn() -> ProxyConfig) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder();
        builder.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder
            .proxy_config(proxy())
            // Named explicitly: a dependency could have set any process-wide default.
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .tls_context(context.clone())
            .build()
    })
}

/// Requests for the machine's and the task's metadata use no proxy: a proxy does not reach them, and would see the
/// token that is used to ask for credentials.
#[derive(Debug)]
struct Ways<T> {
    straight: T,
    proxied: T,
    proxies: Arc<Proxies>,
}

impl HttpClient for Ways<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Ways {
            straight: self.straight.http_connector(settings, components),
            proxied: self.proxied.http_connector(settings, components),
            proxies: Arc::clone(&self.proxies),
        })
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.proxied.connector_metadata()
    }
}

impl HttpConnector for Ways<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if is_metadata(request.uri()) || self.proxies.are_for_nobody() {
            return self.straight.call(request);
        }
        let proxy = self.proxies.on_the_way_to(request.uri()).cloned();
        let answer = self.proxied.call(request);
        match proxy {
            Some(proxy) => {
                HttpConnectorFuture::new(async move { answer.await.map_err(|error| proxy::through(proxy, error)) })
            }
            None => answer,
        }
    }
}

/// 169.254.169.254 (EC2), 169.254.170.2 (ECS), 169.254.170.23 (EKS), and their IPv6 addresses, fd00:ec2::….
fn is_metadata(uri: &str) -> bool {
    match proxy::host(uri).parse() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.segments()[..2] == [0xfd00, 0xec2],
        Err(_) => false,
    }
}

/// A file of certificate authorities, and the setting that names it.
struct Bundle {
    path: PathBuf,
    name: &'static str,
}

/// The file of the setting, or else of the profile's `ca_bundle`.
async fn bundle(settings: &settings::Aws) -> Option<Bundle> {
    if let Some(path) = &settings.ca_bundle {
        return Some(Bundle {
            path: path.clone(),
            name: "AWS_CA_BUNDLE",
        });
    }
    // Errors in the profile's files are reported by the code that needs the credentials.
    let profile = aws_config::profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), None).await;
    let path = profile
        .ok()?
        .get("ca_bundle")
        .filter(|path| !path.is_empty())?
        .to_owned();
    let path = match (path.strip_prefix("~/"), Env::real().get("HOME")) {
        (Some(rest), Ok(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    };
    Some(Bundle {
        path,
        name: "ca_bundle of the AWS profile",
    })
}

fn trusting(path: &Path, name: &str) -> Result<TlsContext> {
    let refused = |why: &str| {
        Error::config(format!("{name}: {}: {why}", path.display()))
            .hint("name a file with the authorities' certificates as PEM")
    };
    let pem = named_file::read(path, LONGEST).map_err(|error| refused(&error.to_string()))?;
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    if certificates.is_ok_and(|found| !found.is_empty()) {
        let trusted = TrustStore::empty().with_pem_certificate(pem);
        return TlsContext::builder()
            .with_trust_store(trusted)
            .build()
            .map_err(|error| refused(&error.to_string()));
    }
    Err(refused("it holds no certificate"))
}

#[cfg(test)]
mod tests {
    use super::is_metadata;

    #[test]
    fn metadata_is_known_by_its_address() {
        for metadata in [
            "http://169.254.169.254/latest/api/token",
            "http://169.254.170.2/v2/credentials/x?a=b",
            "http://169.254.170.23:80/v1/credentials",
            "http://[fd00:ec2::254]/latest",
            "http://[fd00:ec2::23]:80/v1/credentials",
        ] {
            assert!(is_metadata(metadata), "{metadata}");
        }
        for other in [
            "https://sts.amazonaws.com/",
            "http://127.0.0.1:4566/169.254.169.254",
            "http://169.254.169.254.example.com/",
            "http://[fd00::1]/",
            "",
        ] {
            assert!(!is_metadata(other), "{other}");
        }
    }
}
