//! Which tag the files of each finished backup have: the newest good ones `latest`, to which no lifecycle rule
//! applies; the others the tier that their manifest names.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::Tier;
use crate::store::{PENDING, TIER_TAG};

/// The object tag with the file's digest in hex digits.
pub const SHA256_TAG: &str = "sha256";
pub const LATEST: &str = "latest";

/// A value of [`TIER_TAG`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Set when an object is written, and on left-overs: no manifest names it.
    Pending,
    /// Set right before the manifest is put, and on the newest good backups: never expires.
    Latest,
    /// Set by the next run: the backup expires with its tier.
    Tier(Tier),
}

impl Tag {
    pub fn name(self) -> &'static str {
        match self {
            Tag::Pending => PENDING,
            Tag::Latest => LATEST,
            Tag::Tier(tier) => tier.name(),
        }
    }

    /// `None`: no tag of pgstow, or a value that this version does not know.
    pub fn of(tags: &[(String, String)]) -> Option<Self> {
        let (_, value) = tags.iter().find(|(key, _)| key == TIER_TAG)?;
        [Tag::Pending, Tag::Latest]
            .into_iter()
            .chain(Tier::ALL.map(Tag::Tier))
            .chain([Tag::Tier(Tier::Increment)])
            .find(|tag| tag.name() == value)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the plan of tags needs to know of one whole backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagCandidate {
    /// The tier in its manifest.
    pub tier: Tier,
    /// A check found it damaged: it takes no place of a good one, but it does not expire for this reason.
    pub damaged: bool,
    /// Its current tag as a whole; `None` if its files differ or have no known tag.
    pub bears: Option<Tag>,
}

/// One change: the backup at `index` of the list that the plan was made from must get the tag `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retag {
    pub index: usize,
    pub to: Tag,
}

/// How many places of good backups are taken, on the walk from the newest to the oldest.
#[derive(Default)]
struct Places {
    /// Good backups so far.
    good: usize,
    /// The last one was damaged: the next good one stays in its place.
    doubted: bool,
}

impl Places {
    /// The tag of the next backup. The last good backup never expires, whatever the setting. A failed check makes
    /// nothing expire, neither the damaged backup nor the one before.
    fn wanted(&mut self, keep_last: usize, standing: &TagCandidate) -> Tag {
        let stays = self.good < keep_last.max(1) || self.doubted;
        self.doubted = standing.damaged;
        self.good += usize::from(!standing.damaged);
        if stays { Tag::Latest } else { Tag::Tier(standing.tier) }
    }
}

/// How long before the oldest full backup with the tag `latest` an increment may have begun, and still be needed with
/// it: it may hold changes of transactions that the snapshot does not see.
const BEFORE_A_FULL: SignedDuration = SignedDuration::from_hours(24);

/// From which time on increments are needed with the newest full backups: while backups are not made, the last full one
/// and all increments that follow it stay. The increment before the full is one of them, however long ago it was made:
/// it proves that nothing is missing. `oldest` is the time of the oldest full backup with the tag `latest`; `begun` are
/// those of all increments.
pub fn increments_needed_since(
    oldest: Option<Timestamp>,
    begun: impl IntoIterator<Item = Timestamp>,
) -> Option<Timestamp> {
    let oldest = oldest?;
    let before = begun
        .into_iter()
        .filter(|begun| *begun <= oldest)
        .max()
        .unwrap_or(oldest);
    Some(before.min(oldest.checked_sub(BEFORE_A_FULL).unwrap_or(Timestamp::MIN)))
}

/// The tag of an increment that began at `begun`. `needed` is the time of [`increments_needed_since`].
pub fn tag_of_increment(begun: Timestamp, needed: Option<Timestamp>) -> Tag {
    match needed {
        Some(needed) if begun < needed => Tag::Tier(Tier::Increment),
        _ => Tag::Latest,
    }
}

fn wanted(keep_last: usize, standings: &[TagCandidate]) -> Vec<Tag> {
    let mut places = Places::default();
    let each = standings.iter().map(|standing| places.wanted(keep_last, standing));
    each.collect()
}

/// Whether this backup and all older ones have the right tags, if plans are carried out in their order: then the
/// walk, which has passed the backups in `newer`, may end here.
pub fn settled(keep_last: usize, newer: &[TagCandidate], standing: TagCandidate) -> bool {
    let mut places = Places::default();
    for one in newer {
        places.wanted(keep_last, one);
    }
    places.good >= keep_last.max(1)
        && !places.doubted
        && !standing.damaged
        && standing.bears == Some(Tag::Tier(standing.tier))
}

/// What to change so that the whole backups, newest first, have the right tags. The changes must be made in order.
/// Promotions come first, since an interruption must not let a backup expire that should be kept. Then come
/// demotions, oldest first: after an interruption the remaining ones are the newest, which the next walk reaches
/// before it ends.
pub fn tag_plan(keep_last: usize, whole: &[TagCandidate]) -> Vec<Retag> {
    let changes = whole.iter().zip(wanted(keep_last, whole)).enumerate();
    let changes =
        changes.filter_map(|(index, (standing, to))| (standing.bears != Some(to)).then_some(Retag { index, to }));
    let (mut plan, mut demotions): (Vec<_>, Vec<_>) = changes.partition(|retag| retag.to == Tag::Latest);
    demotions.reverse();
    plan.append(&mut demotions);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIERED: Option<Tag> = Some(Tag::Tier(Tier::Daily));

    fn standing(bears: Option<Tag>) -> TagCandidate {
        TagCandidate {
            tier: Tier::Daily,
            damaged: false,
            bears,
        }
    }

    fn retag(index: usize, to: Tag) -> Retag {
        Retag { index, to }
    }

    #[test]
    fn a_success_demotes_its_predecessor_to_the_tier_of_its_manifest() {
        let good = [
            standing(Some(Tag::Latest)),
            TagCandidate {
                tier: Tier::Monthly,
                damaged: false,
                bears: Some(Tag::Latest),
            },
            standing(TIERED),
        ];
        assert_eq!(tag_plan(1, &good), [retag(1, Tag::Tier(Tier::Monthly))]);
        assert!(settled(1, &good[..2], good[2]));
        assert!(!settled(1, &good[..1], good[1]));
    }

    #[test]
    fn a_damaged_backup_takes_no_place_and_protects_the_good_one_before_it() {
        let damaged = |bears| TagCandidate {
            damaged: true,
            ..standing(bears)
        };
        // A new backup after one that was found damaged: the damaged one and its predecessor stay.
        let walk = [
            standing(Some(Tag::Latest)),
            damaged(Some(Tag::Latest)),
            standing(TIERED),
        ];
        assert_eq!(
            tag_plan(1, &walk),
            [retag(2, Tag::Latest), retag(1, Tag::Tier(Tier::Daily))]
        );
        assert!(!settled(1, &walk[..2], walk[2]));
        // The newest itself is damaged: no other backup loses its place.
        let walk = [damaged(Some(Tag::Latest)), standing(TIERED), standing(TIERED)];
        assert_eq!(tag_plan(1, &walk), [retag(1, Tag::Latest)]);
        assert!(settled(1, &walk[..2], walk[2]));
        assert!(!settled(1, &walk[..1], walk[1]));
    }

    #[test]
    fn a_raised_keep_last_promotes_before_it_demotes() {
        let good = [Some(Tag::Latest), TIERED, Some(Tag::Pending), None, Some(Tag::Latest)].map(standing);
        assert_eq!(
            tag_plan(3, &good),
            [
                retag(1, Tag::Latest),
                retag(2, Tag::Latest),
                retag(4, Tag::Tier(Tier::Daily)),
                retag(3, Tag::Tier(Tier::Daily)),
            ]
        );
    }

    #[test]
    fn the_last_good_backup_is_kept_whatever_the_setting() {
        assert_eq!(tag_plan(0, &[standing(TIERED)]), [retag(0, Tag::Latest)]);
    }

    #[test]
    fn tags_are_read_back_as_they_are_written() {
        for tag in [
            Tag::Pending,
            Tag::Latest,
            Tag::Tier(Tier::Yearly),
            Tag::Tier(Tier::Increment),
        ] {
            let tags = [
                ("team".into(), "shop".into()),
                (TIER_TAG.to_owned(), tag.name().to_owned()),
            ];
            assert_eq!(Tag::of(&tags), Some(tag));
        }
        assert_eq!(Tag::of(&[(TIER_TAG.to_owned(), "hourly".to_owned())]), None);
    }

    fn any_standing() -> impl Strategy<Value = TagCandidate> {
        let bears = prop_oneof![
            Just(None),
            Just(Some(Tag::Pending)),
            Just(Some(Tag::Latest)),
            (0_usize..4).prop_map(|tier| Some(Tag::Tier(Tier::ALL[tier]))),
        ];
        (0_usize..4, any::<bool>(), bears).prop_map(|(tier, damaged, bears)| TagCandidate {
            tier: Tier::ALL[tier],
            damaged,
            bears,
        })
    }

    proptest! {
        #[test]
        fn carried_out_the_plan_leaves_nothing_to_do(
            keep_last in 0_usize..5,
            mut good in proptest::collection::vec(any_standing(), 0..12),
        ) {
            for Retag { index, to } in tag_plan(keep_last, &good) {
                good[index].bears = Some(to);
            }
            prop_assert_eq!(tag_plan(keep_last, &good), []);
            prop_assert!(good.iter().take(keep_last.max(1)).all(|one| one.bears == Some(Tag::Latest)));
        }

        /// A store with the right tags, a changed setting, and a plan that is interrupted anywhere: the next walk,
        /// which ends at the first settled backup, still finds all remaining changes.
        #[test]
        fn an_interrupted_plan_is_finished_by_the_next_walk(
            before in 1_usize..6,
            after in 1_usize..6,
            tiers in proptest::collection::vec(0_usize..4, 0..12),
            done in 0_usize..12,
        ) {
            let mut good: Vec<TagCandidate> = tiers
                .iter()
                .map(|&tier| TagCandidate {
                    tier: Tier::ALL[tier],
                    damaged: false,
                    bears: None,
                })
                .collect();
            let tags = wanted(before, &good);
            for (one, tag) in good.iter_mut().zip(tags) {
                one.bears = Some(tag);
            }
            // The run that uses the new setting has just committed a backup.
            good.insert(0, standing(Some(Tag::Latest)));
            for Retag { index, to } in tag_plan(after, &good).into_iter().take(done) {
                good[index].bears = Some(to);
            }
            good.insert(0, standing(Some(Tag::Latest)));
            let end = (0..good.len()).find(|&index| settled(after, &good[..index], good[index])).unwrap_or(good.len());
            for Retag { index, to } in tag_plan(after, &good[..end]) {
                good[index].bears = Some(to);
            }
            prop_assert_eq!(tag_plan(after, &good), []);
        }
    }
}
