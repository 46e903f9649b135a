//! The login by SCRAM-SHA-256 (documentation: "SASL Authentication"; RFC 5802, RFC 7677): neither side gives the
//! password away, and the server also proves that it knows it. With TLS the proof is valid only on this connection
//! (`-PLUS`).

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS};

/// The best mechanism that both sides support. If the client could bind the login to the connection but the server
/// does not offer it, the proof says so: a server that did offer it, and whose offer was removed on the way, then
/// refuses the login.
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
