//! Asks the store the questions of [`TierChoice`].

use jiff::Timestamp;

use super::{Listed, found_damaged, fulls, read_good};
use crate::error::Result;
use crate::repository::retention::Policy;
use crate::repository::retention::{Step, Tier, TierChoice};
use crate::repository::signature::Trust;
use crate::store::Store;

/// The tier for a new backup whose id has the time `now`; `listed` are the database's folders.
pub async fn choose_tier(store: &dyn Store, policy: &Policy, now: Timestamp, listed: &[Listed]) -> Result<Tier> {
    let finished = fulls(listed).filter(|one| one.has_manifest).map(|one| &one.id);
    let mut choice = TierChoice::new(policy, now, finished);
    loop {
        let id = match choice.step() {
            Step::Decided(tier) => return Ok(tier),
            Step::Ask(id) => id.clone(),
        };
        let tier = match listed.iter().find(|one| one.id == id) {
            Some(one) if found_damaged(store, one).await? => None,
            // Signed or not: a person who can write to the store can also set tags, which has the same effect.
            Some(one) => read_good(store, one, &Trust::default())
                .await?
                .map(|summary| summary.tier),
            None => None,
        };
        choice.answer(id, tier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::catalog::backups;
    use crate::repository::catalog::tests::{id, plant};
    use crate::repository::manifest::tests::sample;
    use crate::store::memory::{MemoryStore, Op};

    #[tokio::test]
    async fn the_tier_follows_from_good_backups_alone_with_few_reads() {
        let store = MemoryStore::with_lifecycle();
        let policy = Policy::Tiers(vec![(Tier::Daily, 7), (Tier::Monthly, 12)]);
        for (day, tier) in [(1, Tier::Monthly), (2, Tier::Daily), (3, Tier::Daily)] {
            let id = id(&format!("shop/2025010{day}T040500Z-full"));
            plant(&store, &sample(&id, tier), "latest");
        }
        let now = "2025-01-04T04:00:00Z".parse().unwrap();
        let listed = backups(&store, Some("shop")).await.unwrap();
        assert_eq!(choose_tier(&store, &policy, now, &listed).await.unwrap(), Tier::Daily);
        assert_eq!(store.calls(Op::Get).len(), 1);

        // The monthly was found damaged, or its manifest is damaged: the next good backup takes its place.
        let found = r#"{"schema": 1, "id": "shop/20250101T040500Z-full", "drill": {"status": "failed", "at": "2025-01-02T00:00:00Z"}}"#;
        store.plant("shop/20250101T040500Z-full/verification.json", found, &[]);
        let listed = backups(&store, Some("shop")).await.unwrap();
        assert_eq!(choose_tier(&store, &policy, now, &listed).await.unwrap(), Tier::Monthly);
        store.remove("shop/20250101T040500Z-full/verification.json");
        store.plant("shop/20250101T040500Z-full/manifest.json", "{", &[]);
        let listed = backups(&store, Some("shop")).await.unwrap();
        assert_eq!(choose_tier(&store, &policy, now, &listed).await.unwrap(), Tier::Monthly);
    }
}
