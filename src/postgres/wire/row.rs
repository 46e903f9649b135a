//! A row of a simple query's answer in text format.

/// One row in text format.
#[derive(Debug)]
pub(crate) struct Row(Vec<Option<Vec<u8>>>);

impl Row {
    /// A column's bytes; `None` for NULL, and for a column that does not exist.
    pub fn bytes(&self, column: usize) -> Option<&[u8]> {
        self.0.get(column)?.as_deref()
    }

    pub fn text(&self, column: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes(column)?).ok()
    }

    pub fn number<N: std::str::FromStr>(&self, column: usize) -> Option<N> {
        self.text(column)?.parse().ok()
    }

    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let (count, mut rest) = body.split_first_chunk::<2>()?;
        let mut columns = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, after) = rest.split_first_chunk::<4>()?;
            rest = after;
            columns.push(match u32::from_be_bytes(*length) {
                u32::MAX => None,
                length => {
                    let (value, after) = rest.split_at_checked(length as usize)?;
                    rest = after;
                    Some(value.to_vec())
                }
            });
        }
        rest.is_empty().then_some(Self(columns))
    }
}
