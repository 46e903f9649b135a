//! The login by SCRAM-SHA-256 (documentation: "SASL Authentication"; RFC 5802, RFC 7677): neither side gives the password
//! away, and the server proves as well that it knows it. With TLS the proof holds for this line alone (`-PLUS`).

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;

use super::login::{Login, failed, unwritable};
use crate::error::Result;
use crate::postgres::stream::{Stream, unexpected};

/// The server's part of the exchange.
const CONTINUE: u32 = 11;
const FINAL: u32 = 12;

/// Proves that we know the password, and sees that the server does.
pub(super) async fn prove(login: &mut Login<'_>, stream: &mut Stream, offered: &[u8]) -> Result<()> {
    let password = login.password()?;
    let binding = login.binding.clone().filter(|_| !login.wants_binding("disable"));
    let (mechanism, binding) = choose(offered, binding).ok_or_else(|| failed("unsupported SASL mechanism"))?;
    if mechanism != SCRAM_SHA_256_PLUS {
        login.need_no_binding()?;
    }
    let mut scram = ScramSha256::new(password, binding);
    let mut message = BytesMut::new();
    frontend::sasl_initial_response(mechanism, scram.message(), &mut message).map_err(|error| unwritable(&error))?;
    login.send(stream, &message).await?;
    let challenge = said(login, stream, CONTINUE).await?;
    scram.update(&challenge).map_err(|error| login.refuse(&error))?;
    message.clear();
    frontend::sasl_response(scram.message(), &mut message).map_err(|error| unwritable(&error))?;
    login.send(stream, &message).await?;
    let proof = said(login, stream, FINAL).await?;
    scram.finish(&proof).map_err(|error| login.refuse(&error))
}

/// What the server says at this point of the exchange. It must not leave out its own proof.
async fn said(login: &mut Login<'_>, stream: &mut Stream, due: u32) -> Result<Vec<u8>> {
    let question = login.hear(stream).await?;
    if question.code != due {
        return Err(unexpected("another message of the login than the one that is due"));
    }
    Ok(question.rest)
}

/// The best that both sides know. Where we could bind the login to the line, and the server does not offer it, our proof
/// says so: a server that did offer it, and whose offer was cut out on the way, refuses the login then.
fn choose(offered: &[u8], binding: Option<Vec<u8>>) -> Option<(&'static str, ChannelBinding)> {
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
