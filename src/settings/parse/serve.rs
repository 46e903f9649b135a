//! How `serve` is reached, and by whom.

use std::convert::Infallible;

use jiff::tz::TimeZone;
use secrecy::SecretString;

use super::Reader;
use crate::settings::serve::{Network, Serve};
use crate::settings::specs;

/// A key that can be guessed protects nothing.
const SHORTEST_KEY: usize = 32;

impl Reader<'_> {
    pub(super) fn serve(&mut self) -> Serve {
        let default = Serve::default();
        let listen = self.read("BACKUP_LISTEN", |text| {
            text.parse()
                .map_err(|_| format!("{text:?} is not an address and a port, such as 127.0.0.1:8080"))
        });
        let working_dir = self.input.working_dir.clone();
        let tokens_file = self.read("BACKUP_API_TOKENS_FILE", |text| {
            Ok::<_, Infallible>(working_dir.join(text))
        });
        let users_file = self.read("BACKUP_USERS_FILE", |text| Ok::<_, Infallible>(working_dir.join(text)));
        let jwt_secret = self.read("BACKUP_JWT_SECRET", |text| match text.len() {
            ..SHORTEST_KEY => Err("it is shorter than 32 bytes: make one with `openssl rand -hex 32`"),
            _ => Ok(SecretString::from(text)),
        });
        let jwt_default_role = self.read("BACKUP_JWT_DEFAULT_ROLE", |text| match text {
            "viewer" | "operator" | "admin" => Ok(text.to_owned()),
            _ => Err(format!("{text:?} is no role: give viewer, operator or admin")),
        });
        let jwt_audience = self.read("BACKUP_JWT_AUDIENCE", |text| Ok::<_, Infallible>(text.to_owned()));
        let jwt_issuer = self.read("BACKUP_JWT_ISSUER", |text| Ok::<_, Infallible>(text.to_owned()));
        let allowed_hosts = self.words("BACKUP_ALLOWED_HOSTS");
        let mut trusted_proxies = Vec::new();
        for word in self.words("BACKUP_TRUSTED_PROXIES") {
            match Network::parse(&word) {
                Some(network) => trusted_proxies.push(network),
                None => self.problems.add_of(
                    "BACKUP_TRUSTED_PROXIES",
                    format!("BACKUP_TRUSTED_PROXIES: {word:?} is no address and no network, such as 10.0.0.0/8"),
                ),
            }
        }
        let zone = self.zone();
        let log_dir = self.read("BACKUP_LOG_DIR", |text| Ok::<_, Infallible>(working_dir.join(text)));
        let log_days = self.count("BACKUP_LOG_DAYS", 1..=3650);
        let max_runs = self.count("BACKUP_MAX_RUNS", 1..=64);
        let shutdown = self.read("BACKUP_SHUTDOWN_SECONDS", specs::duration);
        Serve {
            listen: listen.unwrap_or(default.listen),
            tokens_file,
            users_file,
            jwt_secret,
            jwt_default_role: jwt_default_role.unwrap_or(default.jwt_default_role),
            jwt_audience,
            jwt_issuer,
            allowed_hosts,
            trusted_proxies,
            zone,
            log_dir,
            log_days: log_days.unwrap_or(default.log_days),
            max_runs: max_runs.unwrap_or(default.max_runs),
            shutdown: shutdown.unwrap_or(default.shutdown),
        }
    }

    /// libpq and cron know zones by `TZ` too; one that they alone understand is no problem here.
    fn zone(&mut self) -> TimeZone {
        let known =
            |text: &str| TimeZone::get(text).map_err(|_| format!("{text:?} is not a time zone, such as Europe/Berlin"));
        let given = self.read("BACKUP_TIMEZONE", known);
        let of_system = || known(self.input.env.get("TZ")?.trim_start_matches(':')).ok();
        given.or_else(of_system).unwrap_or(TimeZone::UTC)
    }

    /// The words of a list, however it was given.
    fn words(&mut self, variable: &str) -> Vec<String> {
        let Some(value) = self.values.get(variable) else {
            return Vec::new();
        };
        let words = value.texts.iter().flat_map(|text| text.split([',', ' ', '\n', '\t']));
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }
}
