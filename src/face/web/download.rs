//! Files as answers: whole or in part, from the store to the client.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::part::Part;
use super::problem::Problem;
use crate::error::Result;
use crate::report::{Offered, Pieces};

/// Files that are sent at once: each needs some slices of memory.
const AT_ONCE: usize = 4;

/// The places of those who download.
pub(super) struct Downloads(Arc<Semaphore>);

impl Default for Downloads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Downloads {
    fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.0).try_acquire_owned();
        place.map_err(|_| {
            Problem::http(
                StatusCode::TOO_MANY_REQUESTS,
                format!("{AT_ONCE} downloads go on already"),
                "ask again when one of them has ended",
            )
        })
    }

    /// The file, or the part of it that the client asks for.
    pub fn answer(&self, headers: &HeaderMap, offered: &Offered) -> Result<Response, Problem> {
        let tag = format!("\"{}\"", offered.tag);
        let has_it = headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .any(|value| *value == *tag);
        let mut answer = if has_it {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            match Part::asked(headers, offered.bytes, &tag) {
                Part::None => return Err(behind(offered.bytes)),
                Part::Whole => self.body(StatusCode::OK, offered, 0..offered.bytes)?,
                Part::Of(part) => {
                    let place = format!("bytes {}-{}/{}", part.start, part.end - 1, offered.bytes);
                    let mut answer = self.body(StatusCode::PARTIAL_CONTENT, offered, part)?;
                    set(&mut answer, header::CONTENT_RANGE, &place);
                    answer
                }
            }
        };
        set(&mut answer, header::ETAG, &tag);
        set(&mut answer, header::ACCEPT_RANGES, "bytes");
        set(&mut answer, header::CACHE_CONTROL, "private, no-cache");
        Ok(answer)
    }

    fn body(&self, status: StatusCode, offered: &Offered, part: std::ops::Range<u64>) -> Result<Response, Problem> {
        let length = part.end - part.start;
        let sending = Sending {
            pieces: offered.read(part),
            _place: self.place()?,
        };
        let pieces = stream::try_unfold(sending, |mut sending| async move {
            match sending.pieces.next().await {
                Ok(piece) => Ok(piece.map(|piece| (piece, sending))),
                Err(error) => {
                    // The connection breaks off, so that the client does not take the bytes for the whole.
                    tracing::error!("a download was broken off: {error}: {}", error.hint_text());
                    Err(error)
                }
            }
        });
        let mut answer = (status, Body::from_stream(pieces)).into_response();
        set(&mut answer, header::CONTENT_TYPE, "application/octet-stream");
        set(&mut answer, header::CONTENT_LENGTH, &length.to_string());
        set(&mut answer, header::CONTENT_DISPOSITION, &attachment(&offered.name));
        if let Some(digest) = offered.sha256.as_ref().and_then(|digest| hex::decode(digest).ok()) {
            let digest = format!("sha-256=:{}:", STANDARD.encode(digest));
            set(&mut answer, HeaderName::from_static("repr-digest"), &digest);
        }
        Ok(answer)
    }
}

/// A file on its way.
struct Sending {
    pieces: Pieces,
    _place: OwnedSemaphorePermit,
}

fn set(answer: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

fn behind(bytes: u64) -> Problem {
    Problem::http(
        StatusCode::RANGE_NOT_SATISFIABLE,
        format!("the file has {bytes} bytes, and the range begins behind them"),
        "ask for bytes that are there",
    )
}

/// The name for clients that know only ASCII, and for all others.
fn attachment(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') {
                c
            } else {
                '_'
            }
        })
        .collect();
    let whole = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{whole}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_neither_ends_the_header_nor_its_value() {
        assert_eq!(
            attachment("größe \"x\"\r\n.dump"),
            "attachment; filename=\"gr__e__x___.dump\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%22x%22%0D%0A%2Edump"
        );
    }
}
