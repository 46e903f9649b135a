//! The length of each part of a multipart upload. It depends only on the part's number, so that memory is known
//! beforehand and no upload runs out of part numbers.

use super::settings;

const MIB: u64 = 1 << 20;
/// S3's own limits for a part; the last one may be shorter.
const SMALLEST: u64 = 5 * MIB;
const LARGEST: u64 = 5 << 30;
/// The size that must fit if the object's size is unknown.
const ANY_OBJECT: u64 = 5 << 40;

/// Parts start at `base`, keep it for the first `flat` parts, and then double every `step` parts
/// until they reach `ceiling`.
///
/// Without an estimate, `flat` is a tenth of the parts: small parts (little memory) for what most
/// databases are, room for 5 TiB for the others. With one, parts are as long as the estimate needs
/// to fit four fifths of the numbers, all alike (some stores want them so), and grow steeply only
/// when it proves wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartSizes {
    base: u64,
    flat: u32,
    step: u32,
    ceiling: u64,
    max_parts: u32,
}

impl PartSizes {
    pub fn new(s3: &settings::S3, size_estimate: Option<u64>) -> Self {
        let max_parts = s3.max_parts.max(1);
        let wanted = s3.part_size.clamp(SMALLEST, LARGEST);
        let (base, flat, step) = match size_estimate {
            Some(estimate) => {
                let flat = (max_parts / 5 * 4).max(1);
                let needed = estimate.div_ceil(u64::from(flat)).next_multiple_of(MIB);
                (needed.clamp(wanted, LARGEST), flat, max_parts / 100)
            }
            None => (wanted, (max_parts / 10).max(1), max_parts / 10),
        };
        let mut schedule = Self {
            base,
            flat,
            step: step.max(1),
            ceiling: base,
            max_parts,
        };
        // The lowest ceiling with which everything fits: longer parts would only cost memory.
        while schedule.capacity() < ANY_OBJECT && schedule.ceiling < LARGEST {
            schedule.ceiling = (schedule.ceiling * 2).min(LARGEST);
        }
        // A thousand parts cannot hold that much even so. Then parts grow sooner, until together they hold half of
        // what parts of S3's largest size would.
        let possible = u64::from(max_parts) * LARGEST / 2;
        while schedule.capacity() < ANY_OBJECT.min(possible) && schedule.step > 1 {
            schedule.step = schedule.step * 3 / 4;
        }
        schedule
    }

    /// The length of part `number` (from 1), unless it is the last; `None` if there is no such part.
    pub fn length(&self, number: u32) -> Option<u64> {
        if number == 0 || number > self.max_parts {
            return None;
        }
        let doublings = number.saturating_sub(self.flat).div_ceil(self.step).min(20);
        Some((self.base << doublings).min(self.ceiling))
    }

    /// The size of the largest object that fits.
    pub fn capacity(&self) -> u64 {
        (1..=self.max_parts).filter_map(|number| self.length(number)).sum()
    }

    pub fn max_parts(&self) -> u32 {
        self.max_parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::settings::{Checksums, Encryption};

    fn settings(max_parts: u32, part_size: u64) -> settings::S3 {
        settings::S3 {
            max_parts,
            part_size,
            memory: 0,
            retry: std::time::Duration::from_secs(35),
            checksums: Checksums::Always,
            tagging: settings::TagMode::Off,
            encryption: Encryption::Bucket,
            storage_class: None,
            path_style: None,
        }
    }

    #[test]
    fn five_terabytes_fit_ten_thousand_parts_that_nobody_estimated() {
        let schedule = PartSizes::new(&settings(10_000, 8 * MIB), None);
        assert!(schedule.capacity() >= 5_000_000_000_000);
        assert_eq!(schedule.length(1), Some(8 * MIB));
        assert_eq!(schedule.length(1000), Some(8 * MIB));
        assert_eq!(schedule.length(1001), Some(16 * MIB));
        assert_eq!(schedule.length(10_000), Some(2 << 30));
        assert_eq!(schedule.length(10_001), None);
    }

    #[test]
    fn a_thousand_parts_hold_what_the_limits_of_s3_allow() {
        let schedule = PartSizes::new(&settings(1_000, 8 * MIB), None);
        assert!(schedule.capacity() > 2 << 40, "{}", schedule.capacity());
        let estimated = PartSizes::new(&settings(1_000, 8 * MIB), Some(1 << 40));
        assert!((1..=800).filter_map(|n| estimated.length(n)).sum::<u64>() >= 1 << 40);
    }

    #[test]
    fn an_estimate_makes_all_parts_alike() {
        let schedule = PartSizes::new(&settings(10_000, 8 * MIB), Some(1 << 40));
        let first = schedule.length(1).unwrap();
        assert_eq!(first, 132 * MIB);
        assert!((1..=8_000).all(|number| schedule.length(number) == Some(first)));
    }

    proptest! {
        #[test]
        fn parts_stay_within_the_limits_and_never_shrink(
            max_parts in 1u32..=10_000,
            part_size in 0u64..(6 << 30),
            estimate in proptest::option::of(0u64..(6 << 40)),
        ) {
            let schedule = PartSizes::new(&settings(max_parts, part_size), estimate);
            let mut before = SMALLEST;
            for number in 1..=max_parts {
                let length = schedule.length(number).unwrap();
                prop_assert!((SMALLEST..=LARGEST).contains(&length));
                prop_assert!(length >= before);
                before = length;
            }
            prop_assert_eq!(schedule.length(max_parts + 1), None);
        }

        #[test]
        fn any_object_fits_ten_thousand_parts_even_when_the_estimate_was_wrong(
            part_size in (5 * MIB)..(6 << 30),
            estimate in proptest::option::of(0u64..(6 << 40)),
        ) {
            let schedule = PartSizes::new(&settings(10_000, part_size), estimate);
            prop_assert!(schedule.capacity() >= 5_000_000_000_000);
        }

        #[test]
        fn an_object_of_the_estimated_size_fits_four_fifths_of_the_parts(
            max_parts in 10u32..=10_000,
            estimate in 0u64..(3 << 30),
        ) {
            let schedule = PartSizes::new(&settings(max_parts, 8 * MIB), Some(estimate));
            let room: u64 = (1..=max_parts / 5 * 4).filter_map(|number| schedule.length(number)).sum();
            prop_assert!(room >= estimate);
        }
    }
}
