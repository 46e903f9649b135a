//! The bytes of a part as a list of buffers; they are not copied on the way to the socket.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

/// Shorter buffers are copied together, since each buffer costs more than so few bytes.
const SHORT: usize = 4 << 10;

#[derive(Debug, Clone, Default)]
pub struct Segments {
    whole: VecDeque<Bytes>,
    /// Short ones, which come after the others.
    short: BytesMut,
    length: usize,
}

impl Segments {
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if bytes.len() < SHORT {
            self.short.extend_from_slice(&bytes);
        } else {
            self.close();
            self.whole.push_back(bytes);
        }
    }

    fn close(&mut self) {
        if !self.short.is_empty() {
            self.whole.push_back(self.short.split().freeze());
        }
    }

    /// The body to send; each retry reads the same buffers.
    pub fn body(mut self) -> ByteStream {
        self.close();
        ByteStream::new(SdkBody::retryable(move || SdkBody::from_body_1_x(self.clone())))
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let short = Some(&self.short[..]).filter(|short| !short.is_empty());
        self.whole.iter().map(|bytes| &bytes[..]).chain(short)
    }
}

impl From<Bytes> for Segments {
    fn from(bytes: Bytes) -> Self {
        let mut segments = Self::default();
        segments.push(bytes);
        segments
    }
}

impl Body for Segments {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.close();
        let next = self.whole.pop_front();
        self.length -= next.as_ref().map_or(0, Bytes::len);
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_out_is_what_came_in_whatever_the_cuts() {
        let mut segments = Segments::default();
        let mut expected = Vec::new();
        for (index, length) in [0, 1, SHORT - 1, SHORT, 100_000, 3, 3, SHORT * 2, 7]
            .into_iter()
            .enumerate()
        {
            let bytes = vec![u8::try_from(index).unwrap(); length];
            expected.extend_from_slice(&bytes);
            segments.push(bytes.into());
        }
        assert_eq!(segments.len(), expected.len());
        assert_eq!(segments.iter().collect::<Vec<_>>().concat(), expected);
        assert_eq!(segments.size_hint().exact(), Some(expected.len() as u64));
        let body = segments.clone().body();
        assert_eq!(body.size_hint(), (expected.len() as u64, Some(expected.len() as u64)));
        assert_eq!(body.collect().await.unwrap().to_vec(), expected);
        assert_eq!(segments.body().collect().await.unwrap().to_vec(), expected, "again");
    }

    #[test]
    fn a_long_buffer_is_not_copied() {
        let bytes = Bytes::from(vec![7; SHORT]);
        let segments = Segments::from(bytes.clone());
        assert_eq!(segments.iter().next().unwrap().as_ptr(), bytes.as_ptr());
    }
}
