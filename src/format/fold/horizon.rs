//! Which transactions a snapshot sees.

/// A snapshot of the database: the transactions whose changes are in the rows that were read in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Horizon {
    xmin: u64,
    xmax: u64,
    /// Ascending.
    running: Vec<u64>,
}

impl Horizon {
    /// All transactions before `xmin` had ended, none from `xmax` on, and `running` had not.
    pub fn new(xmin: u64, xmax: u64, mut running: Vec<u64>) -> Self {
        running.sort_unstable();
        Self { xmin, xmax, running }
    }

    /// Whether the changes of this committed transaction are in the rows. The stream numbers transactions with 32
    /// bits; all that it can hold are within 2^31 of the snapshot.
    pub fn sees(&self, xid: u32) -> bool {
        let xid = self.widened(xid);
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }

    /// Whether it sees nothing that the other one does not see.
    pub fn is_within(&self, other: &Self) -> bool {
        let sees = |xid: u64| xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err());
        let (from, to) = (
            self.running.partition_point(|xid| *xid < other.xmax),
            self.running.partition_point(|xid| *xid < self.xmax),
        );
        let unseen = to.saturating_sub(from) as u64;
        unseen >= self.xmax.saturating_sub(other.xmax) && !other.running.iter().any(|xid| sees(*xid))
    }

    fn widened(&self, xid: u32) -> u64 {
        const EPOCH: u64 = 1 << 32;
        const HALF: u64 = 1 << 31;
        let near = (self.xmax & !(EPOCH - 1)) | u64::from(xid);
        if near > self.xmax.saturating_add(HALF) && near >= EPOCH {
            near - EPOCH
        } else if self.xmax > near.saturating_add(HALF) {
            near.saturating_add(EPOCH)
        } else {
            near
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_snapshot_is_within_a_later_one() {
        let of = |xmin, xmax, running: &[u64]| Horizon::new(xmin, xmax, running.to_vec());
        let later = of(100, 110, &[100, 105]);
        for (snapshot, is_within) in [
            (later.clone(), true),
            (of(90, 95, &[90]), true),
            // It sees a transaction that ran.
            (of(106, 108, &[]), false),
            (of(100, 108, &[100, 105]), true),
            // It sees one that had not begun.
            (of(100, 111, &[100, 105]), false),
            (of(100, 112, &[100, 105, 110, 111]), true),
            (of(120, 120, &[]), false),
        ] {
            assert_eq!(snapshot.is_within(&later), is_within, "{snapshot:?}");
        }
    }

    #[test]
    fn a_snapshot_sees_what_had_ended() {
        let horizon = Horizon::new(100, 110, vec![105, 100]);
        let seen: Vec<u32> = (98..113).filter(|xid| horizon.sees(*xid)).collect();
        assert_eq!(seen, [98, 99, 101, 102, 103, 104, 106, 107, 108, 109]);
        assert!(!Horizon::default().sees(3));
    }

    #[test]
    fn numbers_go_on_after_they_begin_again() {
        let horizon = Horizon::new((7 << 32) + 5, (7 << 32) + 5, Vec::new());
        assert!(horizon.sees(u32::MAX));
        assert!(horizon.sees(4));
        assert!(!horizon.sees(5));
        let horizon = Horizon::new((8 << 32) - 2, (8 << 32) - 2, Vec::new());
        assert!(horizon.sees(u32::MAX - 2));
        assert!(!horizon.sees(u32::MAX));
        assert!(!horizon.sees(3));
    }

    proptest! {
        #[test]
        fn every_number_near_the_snapshot_is_widened_to_itself(xmax in (1_u64 << 31)..(1 << 62), off in -(1_i64 << 31) + 1..(1 << 31)) {
            let xid = xmax.saturating_add_signed(off);
            prop_assert_eq!(Horizon::new(xmax, xmax, Vec::new()).widened(xid as u32), xid);
        }
    }
}
