//! Any bytes, read as a file of changes; and any messages, written to one.

use std::sync::Arc;

use crate::format::Lsn;
use crate::format::changes::{self, Head, Index, Reader, Selection, Writer};

/// As a file: reading ends with an error or with the file's summary. As messages with their lengths: what the writer
/// accepts, it gives back.
pub fn check(bytes: &[u8]) {
    file(bytes);
    messages(bytes);
}

fn file(bytes: &[u8]) {
    let Some(head) = bytes.get(..Head::LENGTH).and_then(|head| Head::parse(head).ok()) else {
        return;
    };
    let begin = Index::offset_in(bytes).and_then(|offset| usize::try_from(offset).ok());
    let Some(Ok(index)) = begin.and_then(|begin| Some(Index::parse(bytes.get(begin..)?, bytes.len() as u64))) else {
        return;
    };
    if let Ok(summary) = changes::check(bytes, &head, index) {
        assert_eq!(summary.bytes, bytes.len() as u64);
    }
}

fn messages(bytes: &[u8]) {
    let head = Head {
        system_identifier: 1,
        timeline: 1,
        database_oid: 1,
        from: Lsn(0),
    };
    let Ok(mut writer) = Writer::new(&head, 1) else {
        return;
    };
    let (mut file, mut taken, mut whole) = (Vec::new(), Vec::new(), 0);
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((message, after)) = after.split_at_checked(length) else {
            break;
        };
        match writer.push(message) {
            Ok(bytes) => file.extend(bytes.unwrap_or_default()),
            Err(_) => return,
        }
        taken.push(message);
        rest = after;
        if !writer.is_inside() {
            whole = taken.len();
        }
    }
    if whole < taken.len() {
        return;
    }
    let to = writer.position();
    let Ok((end, summary)) = writer.finish(to) else {
        return;
    };
    file.extend(end);
    let begin = file.len() - usize::try_from(summary.index.length).unwrap_or(usize::MAX);
    let index = Index::parse(&file[begin..], file.len() as u64).unwrap_or_else(|error| panic!("{error}"));
    let checked = changes::check(&*file, &head, index.clone()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(checked, summary);
    let frames = &file[Head::LENGTH..begin];
    let reader = Reader::new(frames, head.from, Arc::new(index), Selection::default());
    let mut reader = reader.unwrap_or_else(|error| panic!("{error}"));
    let mut read = Vec::new();
    while let Some(item) = reader.next().unwrap_or_else(|error| panic!("{error}")) {
        read.push(item.bytes.to_vec());
    }
    assert_eq!(read, taken);
}
