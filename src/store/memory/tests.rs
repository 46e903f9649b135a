use sha2::{Digest, Sha256};

use super::*;
use crate::store::Expected;

#[tokio::test]
async fn conditions_hold_and_faults_come_as_scripted() {
    let store = MemoryStore::with_lifecycle();
    let object = ObjectInfo::default();
    let put =
        |body: &'static str, condition| store.put_if("a/b", Bytes::from_static(body.as_bytes()), &object, condition);
    let Put::Done(first) = put("1", Condition::Absent).await.unwrap() else {
        panic!("refused");
    };
    assert_eq!(put("1", Condition::Absent).await.unwrap(), Put::Done(first.clone()));
    assert_eq!(put("2", Condition::Absent).await.unwrap(), Put::Refused);
    store.fault(Op::Put, 1, Fault::Reject);
    store.fault(Op::Put, 2, Fault::LoseAnswer);
    put("2", Condition::Unchanged(first.clone())).await.unwrap_err();
    assert_eq!(store.body("a/b").unwrap(), "1");
    put("2", Condition::Unchanged(first.clone())).await.unwrap_err();
    assert_eq!(store.body("a/b").unwrap(), "2");
    assert_eq!(put("3", Condition::Unchanged(first)).await.unwrap(), Put::Refused);
}

#[tokio::test]
async fn an_upload_is_invisible_until_complete_and_refuses_other_bytes() {
    let store = MemoryStore::without_lifecycle();
    let expected = Expected {
        bytes: 2,
        sha256: Sha256::digest(b"hi").into(),
    };
    for (text, visible) in [("no", false), ("hi", true)] {
        let mut upload = store.upload("a/b", &ObjectInfo::default()).await.unwrap();
        upload.write(Bytes::from_static(text.as_bytes())).await.unwrap();
        assert!(store.keys().is_empty());
        assert_eq!(store.unfinished("a/").await.unwrap().len(), 1);
        assert_eq!(upload.complete(&expected).await.is_ok(), visible);
        assert_eq!(store.keys().len(), usize::from(visible));
        assert!(store.unfinished_keys().is_empty());
    }
    store
        .upload("a/c", &ObjectInfo::default())
        .await
        .unwrap()
        .abort()
        .await
        .unwrap();
    assert!(store.unfinished_keys().is_empty());
    assert_eq!(store.folders("").await.unwrap(), ["a"]);
    assert_eq!(store.get_range("a/b", 1, 9).await.unwrap().unwrap(), "i");
    assert_eq!(store.head("a/b").await.unwrap().unwrap().bytes, 2);
    store.reach().await.unwrap();
}
