//! Stores, read from their URLs.

use std::path::{Path, PathBuf};

use super::StoreUrl;

/// Reads one store's URL. Relative folders start at `working_dir`, `~/` at `home`. An error never quotes the part that
/// may hold a password.
pub fn parse(text: &str, working_dir: &Path, home: Option<&str>) -> Result<StoreUrl, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("the store is empty".into());
    }
    if text.chars().any(char::is_control) {
        return Err("the store's URL has control characters".into());
    }
    let scheme = scheme(text);
    match scheme.as_ref().map(|(word, rest)| (word.as_str(), *rest)) {
        Some(("s3", rest)) => bucket(rest),
        Some(("file", rest)) => {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err("a file URL needs three slashes and an absolute path: file:///srv/backups".into());
            }
            let path = percent_encoding::percent_decode_str(path)
                .decode_utf8()
                .map_err(|_| "the file URL is not UTF-8 when decoded".to_owned())?;
            if path.contains('\0') {
                return Err("the file URL holds a zero byte".into());
            }
            Ok(StoreUrl::Folder(PathBuf::from(&*path)))
        }
        Some(("sftp", _)) => Err("SFTP stores are not in this version; use a folder or s3://bucket/prefix".into()),
        Some((other, _)) => Err(format!(
            "{other} is not a kind of store; use a folder, file:///… or s3://bucket/prefix"
        )),
        None => Ok(StoreUrl::Folder(match (text.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => Path::new(home).join(rest),
            _ => plain(working_dir, text),
        })),
    }
}

/// `./backups` as a full path, without the dot.
fn plain(working_dir: &Path, text: &str) -> PathBuf {
    let relative = text.trim_start_matches("./");
    match relative {
        "" | "." => working_dir.to_path_buf(),
        _ if text.starts_with('/') => PathBuf::from(text),
        _ => working_dir.join(relative),
    }
}

/// `word:` or `word://` at the start, in lower case. For a folder with such a name, users write `./word:…`.
fn scheme(text: &str) -> Option<(String, &str)> {
    let (word, rest) = text.split_once(':')?;
    let plausible = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-');
    let is_word = word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.chars().all(plausible);
    let lower = word.to_ascii_lowercase();
    // `Backups:old` is a folder, `S3://bucket` is not.
    let meant = rest.starts_with("//") || lower == word;
    (is_word && meant).then(|| (lower, rest.strip_prefix("//").unwrap_or(rest)))
}

/// The stores in one variable's text: words separated by spaces. Quotes around a word, or backslashes, keep its spaces.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            // Within a word a quote is a letter of the name, as in `/srv/Ada's`.
            ('\'' | '"', None) if word.is_none() => {
                quote = Some(c);
                word = Some(String::new());
            }
            ('\\', None) if chars.peek() == Some(&' ') => {
                word.get_or_insert_default().push(' ');
                chars.next();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is not closed".into());
    }
    words.extend(word);
    // The second half of a path with a space would become a store that the user did not want.
    let plain = |word: &&String| {
        let starts = ["/", "./", "../", "~/"].iter().any(|start| word.starts_with(start));
        !starts && *word != "." && scheme(word).is_none()
    };
    if let Some(odd) = words.iter().skip(1).find(plain) {
        return Err(format!(
            "{odd:?} after a space would be a second store: put a path with a space into quotes, or write ./{odd} if \
             you want a second store"
        ));
    }
    Ok(words)
}

/// Checks the naming rules of general-purpose buckets, so that a typing error costs no request.
fn bucket(rest: &str) -> Result<StoreUrl, String> {
    if rest.contains('@') {
        return Err(
            "the URL of an S3 store may hold no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into(),
        );
    }
    if rest.starts_with('/') {
        return Err("an S3 store is written s3://bucket/prefix: two slashes, then the bucket's name".into());
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plausible = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let valid = (3..=63).contains(&bucket.len())
        && bucket.chars().all(plausible)
        && edge(bucket.chars().next())
        && edge(bucket.chars().last())
        && !bucket.contains("..");
    if !valid {
        return Err(format!(
            "{bucket:?} is not a bucket's name (3 to 63 of a-z, 0-9, `-` and `.`)"
        ));
    }
    let prefix = prefix.trim_matches('/');
    let odd = |segment: &str| matches!(segment, "" | "." | "..");
    if !prefix.is_empty() && prefix.split('/').any(odd) {
        return Err("the prefix has an empty, `.` or `..` segment".into());
    }
    Ok(StoreUrl::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<StoreUrl, String> {
        parse(text, Path::new("/work dir"), Some("/home/ada"))
    }

    fn folder(path: &str) -> Result<StoreUrl, String> {
        Ok(StoreUrl::Folder(path.into()))
    }

    #[test]
    fn folders_are_read_in_every_spelling() {
        assert_eq!(read("./backups"), folder("/work dir/backups"));
        assert_eq!(read("backups"), folder("/work dir/backups"));
        assert_eq!(read("."), folder("/work dir"));
        assert_eq!(read("/srv/pg"), folder("/srv/pg"));
        assert_eq!(read("~/pg"), folder("/home/ada/pg"));
        assert_eq!(read("file:///srv/my%20pg"), folder("/srv/my pg"));
        assert_eq!(read("file://localhost/srv"), folder("/srv"));
        assert_eq!(read("./s3:odd"), folder("/work dir/s3:odd"));
    }

    #[test]
    fn an_s3_store_is_a_bucket_and_a_prefix() {
        let s3 = |bucket: &str, prefix: &str| {
            Ok(StoreUrl::S3 {
                bucket: bucket.into(),
                prefix: prefix.into(),
            })
        };
        assert_eq!(read("s3://shop-backups"), s3("shop-backups", ""));
        assert_eq!(read("S3://shop-backups"), s3("shop-backups", ""));
        assert_eq!(read("Backups:old"), folder("/work dir/Backups:old"));
        assert_eq!(read("s3://shop.backups/pg/prod/"), s3("shop.backups", "pg/prod"));
    }

    #[test]
    fn a_space_in_a_path_is_kept_in_quotes_and_never_makes_a_store_by_mistake() {
        let read = |text: &str| words(text);
        let list = |words: &[&str]| Ok(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(" s3://a/b  /mnt/copy "), list(&["s3://a/b", "/mnt/copy"]));
        assert_eq!(
            read("\"/mnt/My Drive/pg\" s3://a/b"),
            list(&["/mnt/My Drive/pg", "s3://a/b"])
        );
        assert_eq!(read("'./a b'"), list(&["./a b"]));
        assert_eq!(read("/mnt/My\\ Drive/pg"), list(&["/mnt/My Drive/pg"]));
        assert_eq!(read("backups ./copy"), list(&["backups", "./copy"]));
        assert!(read("/mnt/My Drive/pg").unwrap_err().contains("quotes"));
        assert_eq!(read("/srv/Ada's ./b\"c"), list(&["/srv/Ada's", "./b\"c"]));
        assert!(read("\"/mnt").is_err());
    }

    #[test]
    fn what_is_not_a_store_is_refused() {
        for text in [
            "",
            "file://srv/backups",
            "file:backups",
            "s3://",
            "s3://ab",
            "s3://Shop",
            "HTTPS://shop.example",
            "s3://shop_backups",
            "s3://-shop",
            "s3://shop/a//b",
            "s3://shop/../x",
            "gs://shop",
            "https://shop.example",
            "sftp://user@host/x",
            "a\nb",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(read("sftp://u@h/p").unwrap_err().contains("not in this version"));
        for text in ["s3:/shop/x", "s3:///shop/x"] {
            assert!(read(text).unwrap_err().contains("two slashes"), "{text}");
        }
    }

    #[test]
    fn credentials_in_a_store_are_not_repeated() {
        for text in [
            "s3://AKIA:hunter2@bucket/p",
            "sftp://u:hunter2@h/p",
            "ftp://u:hunter2@h",
        ] {
            assert!(!read(text).unwrap_err().contains("hunter2"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in "\\PC*") {
            let _ = read(&text);
        }
    }
}
