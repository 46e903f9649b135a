//! The login by SCRAM-SHA-256 (documentation: "SASL Authentication"; RFC 5802, RFC 7677): neither side gives the password
//! away, and the server proves as well that it knows it. With TLS the proof holds for this line alone (`-PLUS`).

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS};

/// The best that both sides know. Where we could bind the login to the line, and the server does not offer it, our proof
/// says so: a server that did offer it, and whose offer was cut out on the way, refuses the login then.
pub(super) fn choose(offered: &[u8], binding: Option<Vec<u8>>) -> Option<(&'static str, ChannelBinding)> {
    let offers = |name: &str| offered.split(|byte| *byte == 0).any(|one| one == name.as_bytes());
    match binding {
        Some(binding) if offers(SCRAM_SHA_256_PLUS) => {
            Some((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(binding)))
        }
        _ if !offers(SCRAM_SHA_256) => None,
        Some(_) => Some((SCRAM_SHA_256, ChannelBinding::unrequested())),
        None => Some((SCRAM_SHA_256, ChannelBinding::unsupported())),
    }
}
