//! JSON Web Tokens of other programs: HS256 with a shared key. The algorithm is the settings' choice, never the token's.

use std::time::Duration;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Validation};
use ring::hmac;
use serde_json::{Map, Value};
use signature::{Error as SignatureError, Signer, Verifier};

use super::identity::{Credential, Identity, Role};
use super::lasting::Lasting;

/// A key that can be guessed protects nothing.
pub(super) const SHORTEST_KEY: usize = 32;
/// How far the clocks of two machines may be apart, in seconds.
const LEEWAY: u64 = 60;

/// The claims that may name who has the token; the first that is there counts. The older systems' tokens have several.
const NAMES: [&str; 5] = ["sub", "id", "userId", "username", "email"];

/// The longest name. None is cut: two of them could become the same.
const LONGEST_NAME: usize = 200;

/// What is asked of a token beside a good signature and an end.
pub struct Demands {
    /// Of a token that names no role.
    pub default_role: Role,
    /// For whom it must be.
    pub audience: Option<String>,
    /// Who must have made it.
    pub issuer: Option<String>,
}

/// What accepts tokens.
pub(super) struct Tokens {
    key: DecodingKey,
    validation: Validation,
    default_role: Role,
}

impl Tokens {
    pub fn hs256(key: &[u8], demands: Demands) -> Self {
        // A second call is refused, and the first has done what is needed.
        let _ = PROVIDER.install_default();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        validation.validate_aud = demands.audience.is_some();
        if let Some(audience) = demands.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = demands.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Self {
            key: DecodingKey::from_secret(key),
            validation,
            default_role: demands.default_role,
        }
    }

    /// Who has the token, if it is good, and how long it is.
    pub fn proved(&self, token: &str) -> Option<(Identity, Lasting)> {
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &self.key, &self.validation);
        let claims = decoded.ok()?.claims;
        // A token without a role has that of the settings, because the older systems' have none. An unknown role is no
        // role, never the default one.
        let role = match claims.get("role") {
            Some(role) => role.as_str()?.parse().ok()?,
            None => self.default_role,
        };
        let name = NAMES.iter().find_map(|name| match claims.get(*name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        let name = name.unwrap_or_default();
        if name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return None;
        }
        let identity = Identity {
            credential: Credential::Jwt,
            name,
            role,
        };
        let ends = Duration::try_from_secs_f64(claims.get("exp")?.as_f64()?).ok()?;
        Some((identity, Lasting::until(ends.as_secs().saturating_add(LEEWAY))))
    }
}

/// ring, which is here for TLS already, is all the cryptography that these tokens need.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory,
    verifier_factory,
    key_utils: KeyUtils::new_unimplemented(),
};

fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, JwtError> {
    match algorithm {
        Algorithm::HS256 if key.family() == AlgorithmFamily::Hmac => Ok(Box::new(Hs256::new(key.as_bytes()))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, JwtError> {
    match algorithm {
        Algorithm::HS256 if key.family() == AlgorithmFamily::Hmac => Ok(Box::new(Hs256::new(key.try_get_as_bytes()?))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

struct Hs256(hmac::Key);

impl Hs256 {
    fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        // In constant time.
        hmac::verify(&self.0, message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const LATER: u64 = 4_000_000_000;

    fn token(header: &Header, claims: &Value, key: &[u8]) -> String {
        let _ = PROVIDER.install_default();
        encode(header, claims, &EncodingKey::from_secret(key)).unwrap()
    }

    fn tokens(audience: Option<&str>, issuer: Option<&str>) -> Tokens {
        let demands = Demands {
            default_role: Role::Operator,
            audience: audience.map(str::to_owned),
            issuer: issuer.map(str::to_owned),
        };
        Tokens::hs256(KEY, demands)
    }

    fn role_of(claims: &Value) -> Option<Role> {
        let tokens = tokens(None, None);
        tokens
            .proved(&token(&Header::default(), claims, KEY))
            .map(|(identity, _)| identity.role)
    }

    #[test]
    fn a_token_has_the_role_that_it_names_and_older_ones_the_role_of_the_settings() {
        assert_eq!(role_of(&json!({"exp": LATER, "role": "admin"})), Some(Role::Admin));
        assert_eq!(role_of(&json!({"exp": LATER, "role": "viewer"})), Some(Role::Viewer));
        assert_eq!(role_of(&json!({"exp": LATER, "userId": 7})), Some(Role::Operator));
        assert_eq!(role_of(&json!({"exp": LATER, "role": "root"})), None);
        assert_eq!(role_of(&json!({"exp": LATER, "role": null})), None);
        let of_older = json!({"exp": LATER, "userId": 7, "email": "ann@example.com", "sub": 3});
        assert_eq!(role_of(&of_older), Some(Role::Operator));
    }

    #[test]
    fn a_token_without_an_end_expired_not_yet_good_or_of_another_key_is_refused() {
        assert_eq!(role_of(&json!({"role": "admin"})), None);
        assert_eq!(role_of(&json!({"exp": 1_000, "role": "admin"})), None);
        assert_eq!(role_of(&json!({"exp": LATER, "nbf": LATER - 1, "role": "admin"})), None);
        let tokens = tokens(None, None);
        let claims = json!({"exp": LATER, "role": "admin"});
        let others = token(&Header::default(), &claims, b"another key of thirty-two bytes!");
        assert!(tokens.proved(&others).is_none());
        let good = token(&Header::default(), &claims, KEY);
        assert_eq!(tokens.proved(&good).unwrap().0.role, Role::Admin);
        let mut parts: Vec<&str> = good.split('.').collect();
        // {"alg":"none"}
        parts[0] = "eyJhbGciOiJub25lIn0";
        for forged in [
            format!("{}.{}.", parts[0], parts[1]),
            parts.join("."),
            String::new(),
            "a.b.c".to_owned(),
        ] {
            assert!(tokens.proved(&forged).is_none(), "{forged}");
        }
    }

    #[test]
    fn a_token_for_another_audience_or_of_another_issuer_is_refused_where_the_settings_name_them() {
        let proved = |tokens: &Tokens, more: Value| {
            let mut claims = json!({"exp": LATER});
            claims
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            tokens.proved(&token(&Header::default(), &claims, KEY)).is_some()
        };
        let free = tokens(None, None);
        assert!(proved(&free, json!({"aud": "another", "iss": "another"})));
        let strict = tokens(Some("pgstow"), Some("https://login.example"));
        let good = json!({"aud": ["shop", "pgstow"], "iss": "https://login.example"});
        assert!(proved(&strict, good));
        for wrong in [
            json!({}),
            json!({"aud": "pgstow"}),
            json!({"iss": "https://login.example"}),
            json!({"aud": "shop", "iss": "https://login.example"}),
            json!({"aud": "pgstow", "iss": "https://login.example.evil"}),
        ] {
            assert!(!proved(&strict, wrong.clone()), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_taken_whole_or_the_token_is_refused() {
        let name_of = |claims: Value| {
            let proved = tokens(None, None).proved(&token(&Header::default(), &claims, KEY));
            proved.map(|(identity, _)| identity.to_string())
        };
        assert_eq!(name_of(json!({"exp": LATER, "sub": "ann"})), Some("jwt:ann".to_owned()));
        assert_eq!(name_of(json!({"exp": LATER, "userId": 7})), Some("jwt:7".to_owned()));
        assert_eq!(name_of(json!({"exp": LATER})), Some("jwt:".to_owned()));
        assert_eq!(name_of(json!({"exp": LATER, "sub": "a\u{1}nn"})), None);
        assert_eq!(
            name_of(json!({"exp": LATER, "sub": "x".repeat(LONGEST_NAME + 1)})),
            None
        );
    }
}
