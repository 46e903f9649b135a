//! What a `.env` that the user has not named may not do: send AWS credentials from elsewhere to its own endpoint, or
//! decide what is removed from a store that the user has named, or with which key it is encrypted.

use super::Reader;
use crate::settings::problems::Problems;
use crate::settings::value::Layer;
use crate::settings::{StoreUrl, aliases};

const ENDPOINTS: [&str; 7] = [
    "AWS_CA_BUNDLE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_ECS",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "AWS_ENDPOINT_URL_SNS",
];
const OF_RETENTION: [&str; 3] = ["BACKUP_KEEP_LAST", "BACKUP_RETENTION", "BACKUP_RETENTION_DAYS"];

impl Reader<'_> {
    pub(super) fn keep_found_to_its_own(&mut self, stores: &[StoreUrl]) {
        if self.without_found.is_none() {
            return;
        }
        self.keep_credentials_from_its_endpoints(stores);
        let others_store = self
            .values
            .get("BACKUP_STORE")
            .is_some_and(|store| store.layer != Layer::FoundFile);
        if !others_store {
            return;
        }
        if self.input.uses.removes() {
            for variable in OF_RETENTION {
                self.refuse_found(
                    variable,
                    variable,
                    "may not decide what pgstow removes from a store that is named elsewhere",
                );
            }
        }
        let key = "BACKUP_S3_KMS_KEY_ID";
        self.refuse_found(key, key, "may not choose a key for a store that is named elsewhere");
    }

    fn keep_credentials_from_its_endpoints(&mut self, stores: &[StoreUrl]) {
        let is_own = |variable| {
            self.values
                .get(variable)
                .is_some_and(|value| value.layer == Layer::FoundFile)
        };
        let both = |id, key| is_own(id) && is_own(key);
        let own_aws = both("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
        let own_s3 = match self.values.get(aliases::S3_ACCESS_KEY) {
            Some(_) => both(aliases::S3_ACCESS_KEY, aliases::S3_SECRET_KEY),
            None => own_aws,
        };
        let in_s3 = stores.iter().any(|store| matches!(store, StoreUrl::S3 { .. }));
        let s3_named = self.values.get("AWS_ENDPOINT_URL_S3").is_some();
        for variable in ENDPOINTS {
            let own = match variable {
                "AWS_ENDPOINT_URL_S3" => own_s3,
                "AWS_CA_BUNDLE" => own_aws || (own_s3 && in_s3),
                _ => own_aws,
            };
            if own {
                continue;
            }
            let of_store = match variable {
                "AWS_ENDPOINT_URL" => !s3_named,
                variable => matches!(variable, "AWS_ENDPOINT_URL_S3" | "AWS_CA_BUNDLE"),
            };
            if in_s3 && of_store {
                // The backup would go to a bucket of the same name at another provider.
                self.refuse_found(
                    variable,
                    "BACKUP_STORE",
                    "may not decide where AWS credentials from elsewhere go",
                );
            } else {
                self.ignore_found(variable);
            }
        }
    }

    fn refuse_found(&mut self, variable: &'static str, of: &'static str, why: &str) {
        let value = self
            .values
            .get(variable)
            .filter(|value| value.layer == Layer::FoundFile);
        let Some(value) = value else { return };
        let mut found = Problems::default();
        found.add_grave(format!(
            "{}: a .env found in the working folder {why}; name it with --env-file, or set {variable} in the \
             environment",
            value.name
        ));
        self.problems.absorb(found, of);
    }

    /// Uses the value of the other layers instead.
    fn ignore_found(&mut self, variable: &'static str) {
        let value = self
            .values
            .get(variable)
            .filter(|value| value.layer == Layer::FoundFile);
        let Some(value) = value else { return };
        self.warnings.push(format!(
            "{} was ignored: a .env found in the working folder may not decide where AWS credentials from elsewhere \
             go",
            value.name
        ));
        match self.without_found.as_ref().and_then(|others| others.get(variable)) {
            Some(others) => self.values.set(variable, others.clone()),
            None => drop(self.values.remove(variable)),
        }
    }
}
