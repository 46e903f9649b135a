//! Stores with and without conditional writes. The primary needs them: they alone decide which run holds a lease. A
//! copy works without them: pgstow looks at the existing object before it writes.

use bytes::Bytes;

use super::trouble::CONDITIONS;
use super::{Condition, Conditional, ObjectInfo, Put, Store};
use crate::error::{Code, Error, Result};

/// Whether the store has conditional writes, as far as this run knows.
pub fn are_known(store: &dyn Store) -> bool {
    store.conditional().is_some_and(|conditional| !conditional.refused())
}

/// The store's conditional writes, for callers that need them.
pub fn of(store: &dyn Store) -> Result<&dyn Conditional> {
    store.conditional().ok_or_else(|| {
        let what = format!("{} has no conditional writes", store.url());
        Error::new(Code::Store, what).hint(CONDITIONS)
    })
}

/// Puts an object under a condition, as [`Conditional::put_if`] does. If the store has no conditional writes, it
/// checks the condition and then writes: what another run writes in between is lost.
pub async fn put_where(
    store: &dyn Store,
    key: &str,
    body: Bytes,
    object: &ObjectInfo,
    condition: Condition,
) -> Result<Put> {
    if let Some(conditional) = store.conditional().filter(|conditional| !conditional.refused()) {
        let put = conditional.put_if(key, body.clone(), object, condition.clone()).await;
        if put.is_ok() || !conditional.refused() {
            return put;
        }
    }
    let there = store.get(key).await?;
    let holds = match condition {
        Condition::Absent => there.is_none(),
        Condition::Unchanged(version) => there.as_ref().is_some_and(|there| there.version == version),
    };
    match there {
        // An earlier attempt of the same put wrote it.
        Some(there) if !holds && there.body == body => Ok(Put::Done(there.version)),
        _ if !holds => Ok(Put::Refused),
        _ => Ok(Put::Done(store.put(key, body, object).await?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::{Fault, MemoryStore, Op};

    const KEY: &str = "shop/verification.json";

    async fn put(store: &MemoryStore, body: &'static str, condition: Condition) -> Result<Put> {
        let body = Bytes::from_static(body.as_bytes());
        put_where(store, KEY, body, &ObjectInfo::default(), condition).await
    }

    #[tokio::test]
    async fn what_is_put_under_a_condition_is_looked_at_first_where_a_store_has_none() {
        for store in [
            MemoryStore::with_lifecycle(),
            MemoryStore::without_lifecycle().without_conditions(),
            MemoryStore::without_lifecycle().refusing_conditions(),
        ] {
            let Put::Done(first) = put(&store, "1", Condition::Absent).await.unwrap() else {
                panic!("refused");
            };
            assert_eq!(
                put(&store, "1", Condition::Absent).await.unwrap(),
                Put::Done(first.clone())
            );
            assert_eq!(put(&store, "2", Condition::Absent).await.unwrap(), Put::Refused);
            let second = put(&store, "2", Condition::Unchanged(first.clone())).await.unwrap();
            assert!(matches!(second, Put::Done(ref version) if *version != first));
            if !are_known(&store) {
                // As a retry after a lost answer.
                assert_eq!(
                    put(&store, "2", Condition::Unchanged(first.clone())).await.unwrap(),
                    second
                );
            }
            assert_eq!(
                put(&store, "3", Condition::Unchanged(first)).await.unwrap(),
                Put::Refused
            );
            assert_eq!(store.body(KEY).unwrap(), "2");
        }
    }

    #[tokio::test]
    async fn a_store_that_refuses_conditions_is_asked_for_them_once() {
        let store = MemoryStore::without_lifecycle().refusing_conditions();
        assert!(are_known(&store));
        put(&store, "1", Condition::Absent).await.unwrap();
        assert!(!are_known(&store));
        let puts = store.calls(Op::Put).len();
        assert_eq!(put(&store, "2", Condition::Absent).await.unwrap(), Put::Refused);
        assert_eq!(store.calls(Op::Put).len(), puts);
    }

    #[tokio::test]
    async fn any_other_failure_of_a_conditional_put_is_one() {
        let store = MemoryStore::with_lifecycle();
        store.fault(Op::Put, 1, Fault::Reject);
        put(&store, "1", Condition::Absent).await.unwrap_err();
        assert_eq!(store.calls(Op::Put).len(), 1);
        assert_eq!(store.body(KEY), None);
    }

    #[test]
    fn what_needs_conditions_names_the_store_that_has_none() {
        let error = of(&MemoryStore::without_lifecycle().without_conditions())
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.code(), Code::Store);
        assert!(error.message().contains("memory://test"), "{error}");
        assert!(
            error.hint_text().contains("name a store with conditional writes"),
            "{error}"
        );
    }
}
