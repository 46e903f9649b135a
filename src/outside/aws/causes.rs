//! The causes of an SDK error, in words for a person.

use std::error::Error as StdError;

use aws_smithy_types::error::ErrorMetadata;

use super::proxy;

/// The causes of an error, outermost first, as a person can read them: some of the SDK's own texts are Rust's
/// debugging output.
pub(super) fn causes(cause: Option<&(dyn StdError + 'static)>) -> Vec<String> {
    let mut told = Vec::new();
    let mut next = cause;
    while let Some(error) = next {
        let text = match error.downcast_ref::<ErrorMetadata>() {
            Some(service) => match (service.code(), service.message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (code, message) => code.or(message).unwrap_or_default().to_owned(),
            },
            None => error.to_string(),
        };
        let text = text.trim();
        // This names the proxy on the way, and no cause.
        let is_way = error.is::<proxy::Through>();
        if !text.is_empty() && !is_way && !is_debugging_output(text) {
            told.push(text.to_owned());
        }
        next = error.source();
    }
    told
}

/// Whether the text looks like `Type { field: value }` or `Type(Type(...))`.
fn is_debugging_output(text: &str) -> bool {
    let named = |at: usize| text[..at].trim_end().ends_with(|c: char| c.is_ascii_alphanumeric());
    let fields = text.match_indices(" { ").any(|(at, _)| named(at));
    let nested = text.match_indices('(').any(|(at, _)| {
        let name = text[..at]
            .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next();
        name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_uppercase())) && text.ends_with(')')
    });
    fields || nested
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debugging_output_is_told_from_words() {
        for (text, debugging) in [
            ("ConnectorError { kind: Io, source: x }", true),
            ("dispatch failure (DispatchFailure(DispatchFailure { a: b }))", true),
            ("ProviderError(ProviderError)", true),
            ("Connection refused (os error 111)", false),
            ("no service answers (HTTP 503)", false),
            ("external process exited with code 3. Stderr: {\"a\": 1}", false),
        ] {
            assert_eq!(is_debugging_output(text), debugging, "{text}");
        }
        let service = ErrorMetadata::builder().code("AccessDenied").message("not you").build();
        assert_eq!(causes(Some(&service)), ["AccessDenied: not you"]);
    }
}
