//! Holds every store to the guarantees of [`pgstow::store::Store`], and breaks things around it.

pub mod conformance;
mod disks;
mod faults;
pub mod place;
mod service;

/// Runs each named guarantee against a fresh place.
macro_rules! holds {
    ($place:path; $($guarantee:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $guarantee() {
                let place = $place().await;
                crate::store::conformance::$guarantee(crate::store::place::Place::store(&place)).await;
            }
        )*
    };
}

macro_rules! all_guarantees {
    ($place:path) => {
        holds! { $place;
            a_missing_object_is_none_everywhere
            what_was_put_is_got
            a_put_replaces_as_a_whole
            an_upload_is_visible_only_when_complete
            an_object_stays_as_it_is_until_its_upload_is_complete
            an_aborted_upload_leaves_nothing
            an_upload_that_is_not_what_was_expected_leaves_nothing
            every_length_around_a_part_comes_back
            an_upload_takes_nobodys_place
            of_racing_uploads_one_wins
            of_uploads_in_parts_that_overlap_the_first_to_end_wins
            absent_refuses_what_is_there_and_takes_a_repeated_put
            of_racing_absent_puts_one_wins
            unchanged_holds_only_for_the_version_that_is_there
            of_racing_unchanged_puts_one_wins
            lists_are_whole_and_in_byte_order
            folders_are_named_once_and_sorted
            hostile_names_are_names
            ranges_are_exact_at_the_edges
            a_dropped_upload_is_found_and_aborted
            what_is_discarded_is_gone_or_pending
        }
    };
}

mod folder {
    all_guarantees! { crate::store::place::folder }
}

mod s3 {
    all_guarantees! { crate::store::place::bucket }
}

mod s3_without_checksums {
    all_guarantees! { crate::store::place::bucket_without_checksums }
}
