//! One function per guarantee of the trait's documentation. Every back end passes all of them.

use bytes::Bytes;
use futures::future::join_all;
use pgstow::error::Code;
use pgstow::store::{Condition, Expected, ObjectInfo, ObjectVersion, Put, Store, Stored};
use sha2::{Digest, Sha256};

const PART: usize = 5 << 20;

pub fn info() -> ObjectInfo {
    ObjectInfo {
        content_type: "application/octet-stream",
        tags: vec![
            ("pgstow-tier".to_owned(), "pending".to_owned()),
            ("note".to_owned(), "a b+c/d=é".to_owned()),
        ],
        metadata: vec![("pgstow-id".to_owned(), "shop/20260102T030405Z-full".to_owned())],
        ..ObjectInfo::default()
    }
}

/// Bytes that differ at every place, so that swapped or lost parts show.
pub fn pattern(length: usize) -> Bytes {
    let mut state = 0x9E37_79B9_u32;
    let mut bytes = Vec::with_capacity(length + 4);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

pub fn expected(bytes: &[u8]) -> Expected {
    Expected {
        bytes: bytes.len() as u64,
        sha256: Sha256::digest(bytes).into(),
    }
}

/// Uploads in pieces whose length has nothing to do with that of the parts.
pub async fn upload(store: &dyn Store, key: &str, bytes: &Bytes) -> pgstow::error::Result<Stored> {
    let mut upload = store.upload(key, &info()).await?;
    for piece in bytes.chunks(777_777) {
        if let Err(error) = upload.write(bytes.slice_ref(piece)).await {
            upload.abort().await.expect("an abort");
            return Err(error);
        }
    }
    upload.complete(&expected(bytes)).await
}

async fn put(store: &dyn Store, key: &str, body: &str) -> ObjectVersion {
    let body = Bytes::copy_from_slice(body.as_bytes());
    store.put(key, body, &info()).await.unwrap()
}

async fn put_if(store: &dyn Store, key: &str, body: &str, condition: Condition) -> Put {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let conditional = store.conditional().unwrap();
    conditional.put_if(key, body, &info(), condition).await.unwrap()
}

async fn text(store: &dyn Store, key: &str) -> Option<String> {
    let object = store.get(key).await.unwrap()?;
    Some(String::from_utf8(object.body.to_vec()).unwrap())
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let listed = store.list(prefix).await.unwrap();
    listed.into_iter().map(|entry| entry.key).collect()
}

pub async fn a_missing_object_is_none_everywhere(store: &dyn Store) {
    assert!(store.get("shop/none").await.unwrap().is_none());
    assert!(store.head("shop/none").await.unwrap().is_none());
    assert!(store.get_range("shop/none", 0, 10).await.unwrap().is_none());
    assert!(store.list("shop/").await.unwrap().is_empty());
    assert!(store.list("").await.unwrap().is_empty());
    assert!(store.folders("").await.unwrap().is_empty());
    assert!(store.folders("shop/").await.unwrap().is_empty());
    assert!(store.unfinished("").await.unwrap().is_empty());
    store.discard("shop/none").await.unwrap();
}

pub async fn what_was_put_is_got(store: &dyn Store) {
    store.reach().await.unwrap();
    let version = put(store, "shop/a.json", "{\"a\":1}").await;
    let object = store.get("shop/a.json").await.unwrap().unwrap();
    assert_eq!(object.body, "{\"a\":1}");
    assert_eq!(object.version, version);
    let head = store.head("shop/a.json").await.unwrap().unwrap();
    assert_eq!(head.bytes, 7);
    assert_eq!(head.version, version);
    store.reach().await.unwrap();
}

pub async fn a_put_replaces_as_a_whole(store: &dyn Store) {
    put(store, "shop/a", "a long first version").await;
    put(store, "shop/a", "short").await;
    assert_eq!(text(store, "shop/a").await.as_deref(), Some("short"));
    assert_eq!(keys(store, "").await, ["shop/a"]);
    assert!(store.unfinished("").await.unwrap().is_empty());
}

pub async fn an_upload_is_visible_only_when_complete(store: &dyn Store) {
    for length in [100, 2 * PART + 1] {
        let bytes = pattern(length);
        let key = format!("shop/{length}/shop.dump");
        let mut upload = store.upload(&key, &info()).await.unwrap();
        upload.write(bytes.clone()).await.unwrap();
        assert!(store.get(&key).await.unwrap().is_none());
        assert!(store.head(&key).await.unwrap().is_none());
        assert!(keys(store, "shop/").await.iter().all(|listed| *listed != key));
        upload.complete(&expected(&bytes)).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap().unwrap().body, bytes);
        assert!(keys(store, "shop/").await.contains(&key));
    }
}

pub async fn an_object_stays_as_it_is_until_its_upload_is_complete(store: &dyn Store) {
    put(store, "shop/x", "before").await;
    let bytes = pattern(PART + 10);
    let mut upload = store.upload("shop/x", &info()).await.unwrap();
    upload.write(bytes.clone()).await.unwrap();
    assert_eq!(text(store, "shop/x").await.as_deref(), Some("before"));
    upload.abort().await.unwrap();
    assert_eq!(text(store, "shop/x").await.as_deref(), Some("before"));
}

pub async fn an_aborted_upload_leaves_nothing(store: &dyn Store) {
    for length in [0, 100, 3 * PART] {
        let mut upload = store.upload("shop/id/shop.dump", &info()).await.unwrap();
        upload.write(pattern(length)).await.unwrap();
        upload.abort().await.unwrap();
        assert!(store.list("").await.unwrap().is_empty());
        assert!(store.unfinished("").await.unwrap().is_empty());
        assert!(store.folders("").await.unwrap().is_empty());
    }
}

pub async fn an_upload_that_is_not_what_was_expected_leaves_nothing(store: &dyn Store) {
    for length in [100, 2 * PART + 100] {
        let bytes = pattern(length);
        let mut upload = store.upload("shop/id/shop.dump", &info()).await.unwrap();
        upload.write(bytes.clone()).await.unwrap();
        let longer = Expected {
            bytes: length as u64 + 1,
            ..expected(&bytes)
        };
        let error = upload.complete(&longer).await.unwrap_err();
        assert_eq!(error.code(), Code::Store, "{error}");
        assert!(store.list("").await.unwrap().is_empty());
        assert!(store.unfinished("").await.unwrap().is_empty());
    }
}

pub async fn every_length_around_a_part_comes_back(store: &dyn Store) {
    for length in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 12_345] {
        let bytes = pattern(length);
        let key = format!("shop/sized-{length}");
        let stored = upload(store, &key, &bytes).await.unwrap();
        assert_eq!(stored.bytes, length as u64);
        if !stored.parts.is_empty() {
            assert_eq!(stored.parts.iter().map(|part| part.bytes).sum::<u64>(), length as u64);
        }
        assert!(store.get(&key).await.unwrap().unwrap().body == bytes, "{length}");
        assert_eq!(store.head(&key).await.unwrap().unwrap().bytes, length as u64);
    }
    assert!(store.unfinished("").await.unwrap().is_empty());
}

pub async fn an_upload_takes_nobodys_place(store: &dyn Store) {
    for length in [100, PART + 10] {
        let key = format!("shop/{length}/shop.dump");
        let (theirs, ours) = (pattern(length), pattern(length + 1));
        upload(store, &key, &theirs).await.unwrap();
        let error = upload(store, &key, &ours).await.unwrap_err();
        assert_eq!(error.code(), Code::Busy, "{error}");
        assert!(store.get(&key).await.unwrap().unwrap().body == theirs);
        // The same bytes are another's all the same.
        assert_eq!(upload(store, &key, &theirs).await.unwrap_err().code(), Code::Busy);
        assert!(store.unfinished("").await.unwrap().is_empty());

        let replacing = ObjectInfo {
            replace: true,
            ..info()
        };
        let mut upload = store.upload(&key, &replacing).await.unwrap();
        upload.write(ours.clone()).await.unwrap();
        upload.complete(&expected(&ours)).await.unwrap();
        assert!(store.get(&key).await.unwrap().unwrap().body == ours);
    }
}

pub async fn of_racing_uploads_one_wins(store: &dyn Store) {
    let key = "shop/raced/shop.dump";
    let bodies: Vec<Bytes> = (0..6).map(|n| pattern(100 + n)).collect();
    let uploads = join_all(bodies.iter().map(|body| upload(store, key, body))).await;
    assert_one_won(store, key, &bodies, &uploads).await;
}

/// All are under way at once, and end one after the other: not every server that looks whether an object
/// is there does so in one step with putting parts together.
pub async fn of_uploads_in_parts_that_overlap_the_first_to_end_wins(store: &dyn Store) {
    let key = "shop/overlapped/shop.dump";
    let bodies: Vec<Bytes> = (0..4).map(|n| pattern(PART + 10 + n)).collect();
    let begun = join_all(bodies.iter().map(|body| async move {
        let mut upload = store.upload(key, &info()).await?;
        upload.write(body.clone()).await.map(|()| upload)
    }));
    let mut uploads = Vec::new();
    for (upload, body) in begun.await.into_iter().zip(&bodies) {
        uploads.push(match upload {
            Ok(upload) => upload.complete(&expected(body)).await,
            Err(error) => Err(error),
        });
    }
    assert!(uploads[0].is_ok(), "{uploads:?}");
    assert_one_won(store, key, &bodies, &uploads).await;
}

async fn assert_one_won(store: &dyn Store, key: &str, bodies: &[Bytes], uploads: &[pgstow::error::Result<Stored>]) {
    let won: Vec<usize> = (0..uploads.len()).filter(|&n| uploads[n].is_ok()).collect();
    assert_eq!(won.len(), 1, "{uploads:?}");
    let mut lost = uploads.iter().filter_map(|one| one.as_ref().err());
    assert!(lost.all(|error| error.code() == Code::Busy), "{uploads:?}");
    assert!(store.get(key).await.unwrap().unwrap().body == bodies[won[0]]);
    assert!(store.unfinished("").await.unwrap().is_empty());
}

pub async fn absent_refuses_what_is_there_and_takes_a_repeated_put(store: &dyn Store) {
    let first = put_if(store, "shop/manifest.json", "ours", Condition::Absent).await;
    assert!(matches!(first, Put::Done(_)));
    assert_eq!(
        put_if(store, "shop/manifest.json", "theirs", Condition::Absent).await,
        Put::Refused
    );
    assert_eq!(text(store, "shop/manifest.json").await.as_deref(), Some("ours"));
    assert_eq!(
        put_if(store, "shop/manifest.json", "ours", Condition::Absent).await,
        first
    );
    assert!(store.unfinished("").await.unwrap().is_empty());
}

pub async fn of_racing_absent_puts_one_wins(store: &dyn Store) {
    for round in 0..2 {
        let key = format!("shop/{round}/.lease");
        let puts = (0..8).map(|n| {
            let key = key.clone();
            async move { (n, put_if(store, &key, &format!("run {n}"), Condition::Absent).await) }
        });
        let winners: Vec<i32> = join_all(puts)
            .await
            .into_iter()
            .filter(|(_, put)| matches!(put, Put::Done(_)))
            .map(|(n, _)| n)
            .collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(text(store, &key).await.unwrap(), format!("run {}", winners[0]));
    }
}

pub async fn unchanged_holds_only_for_the_version_that_is_there(store: &dyn Store) {
    let Put::Done(first) = put_if(store, "shop/.lease", "one", Condition::Absent).await else {
        panic!("refused");
    };
    let Put::Done(second) = put_if(store, "shop/.lease", "two", Condition::Unchanged(first.clone())).await else {
        panic!("refused though unchanged");
    };
    assert_ne!(first, second);
    let late = put_if(store, "shop/.lease", "late", Condition::Unchanged(first.clone())).await;
    assert_eq!(late, Put::Refused);
    assert_eq!(text(store, "shop/.lease").await.as_deref(), Some("two"));
    let missing = put_if(store, "shop/missing", "x", Condition::Unchanged(first)).await;
    assert_eq!(missing, Put::Refused);
    assert!(store.get("shop/missing").await.unwrap().is_none());
    let head = store.head("shop/.lease").await.unwrap().unwrap();
    assert_eq!(head.version, second);
    assert!(store.unfinished("").await.unwrap().is_empty());
}

pub async fn of_racing_unchanged_puts_one_wins(store: &dyn Store) {
    let Put::Done(mut version) = put_if(store, "shop/.lease", "start", Condition::Absent).await else {
        panic!("refused");
    };
    for round in 0..2 {
        let puts = (0..8).map(|n| {
            let version = version.clone();
            async move {
                let body = format!("round {round}, run {n}");
                (
                    body.clone(),
                    put_if(store, "shop/.lease", &body, Condition::Unchanged(version)).await,
                )
            }
        });
        let mut winners = Vec::new();
        for (body, put) in join_all(puts).await {
            if let Put::Done(new) = put {
                winners.push((body, new));
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        let (body, new) = winners.remove(0);
        assert_eq!(text(store, "shop/.lease").await.unwrap(), body);
        version = new;
    }
}

pub async fn lists_are_whole_and_in_byte_order(store: &dyn Store) {
    let mut wanted: Vec<String> = (0..1_005).map(|n| format!("many/{n:04}")).collect();
    wanted.extend(["many/0003/x", "many/0003-x", "many/0003.x", "mani", "other/a"].map(str::to_owned));
    // A file cannot also be a folder.
    wanted.retain(|key| key != "many/0003");
    for some in wanted.chunks(32) {
        let puts = some.iter().map(|key| put(store, key, key));
        join_all(puts).await;
    }
    wanted.sort();
    assert_eq!(keys(store, "").await, wanted);
    let many: Vec<String> = wanted.iter().filter(|key| key.starts_with("many/")).cloned().collect();
    assert_eq!(keys(store, "many/").await, many);
    assert_eq!(keys(store, "many/000").await.len(), 12);
    assert_eq!(keys(store, "man").await.len(), wanted.len() - 1);
    assert_eq!(keys(store, "many/0003/").await, ["many/0003/x"]);
    assert!(keys(store, "none/").await.is_empty());
    let entry = &store.list("other/").await.unwrap()[0];
    assert_eq!((entry.key.as_str(), entry.bytes), ("other/a", 7));
    let age = jiff::Timestamp::now().duration_since(entry.modified.unwrap());
    assert!(age.as_secs().abs() < 300, "{age:?}");
}

pub async fn folders_are_named_once_and_sorted(store: &dyn Store) {
    for key in ["b/1/x", "b/2/x", "a b/1/y", "ä/1/z", "top"] {
        put(store, key, "x").await;
    }
    assert_eq!(store.folders("").await.unwrap(), ["a b", "b", "ä"]);
    assert_eq!(store.folders("b/").await.unwrap(), ["1", "2"]);
    assert!(store.folders("b/1/").await.unwrap().is_empty());
}

pub async fn hostile_names_are_names(store: &dyn Store) {
    let names = [
        "with space",
        "quote'\"",
        "per%cent%20",
        "plus+and&",
        "größe-日本",
        "-leading",
        "#hash?query",
        ".dot",
        "semi;colon",
        "a=b",
        "tilde~",
        "star*",
        "$HOME",
        "[x]{y}",
    ];
    let bytes = pattern(PART + 3);
    for name in names {
        let key = format!("{name}/1/{name}");
        put(store, &key, name).await;
        assert_eq!(text(store, &key).await.as_deref(), Some(name));
        assert_eq!(keys(store, &format!("{name}/")).await, std::slice::from_ref(&key));
        assert_eq!(store.folders(&format!("{name}/")).await.unwrap(), ["1"]);
        assert_eq!(store.head(&key).await.unwrap().unwrap().bytes, name.len() as u64);
    }
    assert_eq!(store.folders("").await.unwrap().len(), names.len());
    let key = format!("{0}/2/{0}", names[2]);
    upload(store, &key, &bytes).await.unwrap();
    assert!(store.get(&key).await.unwrap().unwrap().body == bytes);
}

pub async fn ranges_are_exact_at_the_edges(store: &dyn Store) {
    let bytes = pattern(2 * PART + 1_000);
    let length = bytes.len() as u64;
    upload(store, "shop/shop.dump", &bytes).await.unwrap();
    let part = PART as u64;
    for (offset, wanted) in [
        (0, 1),
        (0, 10),
        (0, length),
        (part - 1, 2),
        (part, part),
        (length - 1, 1),
        (length - 1, 100),
        (length - 10, u64::MAX / 2),
    ] {
        let got = store
            .get_range("shop/shop.dump", offset, wanted)
            .await
            .unwrap()
            .unwrap();
        let end = offset.saturating_add(wanted).min(length);
        assert!(got == bytes[offset as usize..end as usize], "{offset}+{wanted}");
    }
    for (offset, wanted) in [(length, 1), (length + 5, 10), (3, 0)] {
        let got = store.get_range("shop/shop.dump", offset, wanted).await.unwrap();
        assert_eq!(got.as_deref(), Some(&b""[..]), "{offset}+{wanted}");
    }
    put(store, "shop/empty", "").await;
    assert_eq!(
        store.get_range("shop/empty", 0, 5).await.unwrap().as_deref(),
        Some(&b""[..])
    );
    assert_eq!(text(store, "shop/empty").await.as_deref(), Some(""));
}

pub async fn a_dropped_upload_is_found_and_aborted(store: &dyn Store) {
    put(store, "shop/.lease", "x").await;
    put(store, "other/.lease", "x").await;
    let key = "shop/20260102T030405Z-full/shop.dump";
    let mut upload = store.upload(key, &info()).await.unwrap();
    upload.write(pattern(2 * PART)).await.unwrap();
    drop(upload);
    assert_eq!(keys(store, "").await, ["other/.lease", "shop/.lease"]);
    assert!(store.unfinished("other/").await.unwrap().is_empty());
    let found = store.unfinished("shop/").await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].key, key);
    let age = jiff::Timestamp::now().duration_since(found[0].started.unwrap());
    assert!(age.as_secs().abs() < 300, "{age:?}");
    store.abort_unfinished(&found[0]).await.unwrap();
    store.abort_unfinished(&found[0]).await.unwrap();
    assert!(store.unfinished("").await.unwrap().is_empty());
    assert_eq!(keys(store, "").await, ["other/.lease", "shop/.lease"]);
    assert!(store.folders("shop/").await.unwrap().is_empty());
}

pub async fn what_is_discarded_is_gone_or_pending(store: &dyn Store) {
    let key = "shop/20260102T030405Z-full/manifest.json";
    let tagged = ObjectInfo {
        tags: vec![
            ("pgstow-tier".to_owned(), "latest".to_owned()),
            ("sha256".to_owned(), "ab12".to_owned()),
        ],
        ..info()
    };
    store.put(key, Bytes::from_static(b"x"), &tagged).await.unwrap();
    put(store, "shop/.lease", "x").await;
    store.discard(key).await.unwrap();
    store.discard(key).await.unwrap();
    match store.lifecycle() {
        None => {
            assert_eq!(keys(store, "").await, ["shop/.lease"]);
            assert!(store.folders("shop/").await.unwrap().is_empty());
        }
        Some(lifecycle) => {
            let mut tags = lifecycle.tags(key).await.unwrap().unwrap();
            tags.sort();
            let pending = ("pgstow-tier".to_owned(), "pending".to_owned());
            assert_eq!(tags, [pending, ("sha256".to_owned(), "ab12".to_owned())]);
        }
    }
}
