use super::*;
use proptest::prelude::*;

fn id(database: &str) -> BackupId {
    BackupId::next(
        database,
        BackupKind::Full,
        "2025-01-31T04:05:00.987Z".parse().unwrap(),
        None,
    )
}

#[test]
fn the_id_is_database_and_start() {
    assert_eq!(id("shop").to_string(), "shop/20250131T040500Z-full");
    assert_eq!(id("shop").folder(), "shop/20250131T040500Z-full/");
    assert_eq!(id("shop").key(GLOBALS), "shop/20250131T040500Z-full/globals.sql");
    assert_eq!(id("shop").dump_name(), "shop.dump");
    assert_eq!(id("shop").sql_name(".zst"), "shop.sql.zst");
}

#[test]
fn hostile_names_become_one_safe_segment_and_come_back() {
    for (database, folder) in [
        ("..", "%2E."),
        (".", "%2E"),
        (".lease", "%2Elease"),
        ("a/b\\c", "a%2Fb%5Cc"),
        ("100%", "100%25"),
        ("two\nlines\u{7f}", "two%0Alines%7F"),
        ("next\u{85}line", "next%C2%85line"),
        ("-rf *", "-rf *"),
        ("it's \"Ünïcode\" 🐘", "it's \"Ünïcode\" 🐘"),
        ("v1.2", "v1.2"),
    ] {
        assert_eq!(encode(database), folder);
        assert_eq!(database_of_folder(folder).as_deref(), Some(database));
        assert_eq!(id(database).to_string().parse(), Ok(id(database)));
    }
    assert_eq!(lease_key("a/b"), "a%2Fb/.lease");
    assert_eq!(database_folder("shop"), "shop/");
}

#[test]
fn names_that_we_never_make_are_refused() {
    for folder in ["", "%2f", "%41", ".hidden", "a%2", "a%zz", "100%"] {
        assert_eq!(database_of_folder(folder), None, "{folder:?}");
    }
    for text in [
        "shop",
        "shop/",
        "shop/latest",
        "shop/20250131T040500Z",
        "shop/20250131T040500Z-FULL",
        "shop/20250131T040500Z-full/",
        "shop/20250230T040500Z-full",
        "shop/20250131T040560Z-full",
        "shop/20250131 040500Z-full",
        "shop/+0250131T040500Z-full",
        "shop/99991231T235959Z-full",
        "/20250131T040500Z-full",
        "a/b/20250131T040500Z-full",
    ] {
        assert!(text.parse::<BackupId>().is_err(), "{text:?}");
    }
}

#[test]
fn the_files_that_we_make_are_told_from_others() {
    for name in [
        "shop.dump",
        "shop.toc",
        "shop.sql",
        "shop.sql.gz",
        "shop.sql.zst",
        GLOBALS,
        MANIFEST,
        MANIFEST_DIGEST,
        MD5SUMS,
    ] {
        assert!(id("shop").makes(name), "{name}");
    }
    for name in ["shop2.dump", "shop.dump.bak", "notes.txt", ".lease", "shop.sql.xz", ""] {
        assert!(!id("shop").makes(name), "{name}");
    }
    assert!(id("a/b").makes("a%2Fb.dump"));
}

#[test]
fn a_header_gets_visible_ascii_only() {
    assert_eq!(id("Ü x%").ascii(), "%C3%9C%20x%25/20250131T040500Z-full");
}

#[test]
fn a_second_run_within_the_second_or_after_a_clock_step_gets_a_later_id() {
    let now: Timestamp = "2025-01-31T04:05:00.2Z".parse().unwrap();
    let first = BackupId::next("shop", BackupKind::Incremental, now, None);
    let second = BackupId::next("shop", BackupKind::Full, now, Some(&first));
    assert_eq!(second.to_string(), "shop/20250131T040501Z-full");
    let earlier = now.checked_sub(SignedDuration::from_hours(5)).unwrap();
    let third = BackupId::next("shop", BackupKind::Full, earlier, Some(&second));
    assert_eq!(third.to_string(), "shop/20250131T040502Z-full");
}

#[test]
fn a_key_is_ours_only_directly_in_a_backups_folder() {
    let key = "shop/20250131T040500Z-full/shop.dump";
    assert_eq!(BackupId::of_key(key), Some((id("shop"), "shop.dump")));
    for foreign in [
        "shop/.lease",
        "shop/notes.txt",
        "shop/20250131T040500Z-full",
        "shop/20250131T040500Z-full/",
        "shop/20250131T040500Z-full/deeper/shop.dump",
    ] {
        assert_eq!(BackupId::of_key(foreign), None, "{foreign}");
    }
}

proptest! {
    #[test]
    fn every_id_is_read_back_as_it_was_written(
        database in "\\PC{1,20}|[./\\\\%\\x00-\\x1f\\x7fa-z -]{1,63}|(?s:.){1,20}",
        second in 0_i64..253_370_764_800,
        incremental: bool,
    ) {
        let kind = if incremental { BackupKind::Incremental } else { BackupKind::Full };
        let id = BackupId::next(&database, kind, Timestamp::from_second(second).unwrap(), None);
        let text = id.to_string();
        prop_assert_eq!(text.parse::<BackupId>(), Ok(id.clone()));
        prop_assert_eq!(text.matches('/').count(), 1);
        prop_assert!(!text.starts_with('.'));
        prop_assert!(!text.chars().any(char::is_control));
        let visible = id.ascii();
        prop_assert!(visible.bytes().all(|byte| byte.is_ascii_graphic()));
        let decoded = percent_encoding::percent_decode_str(&visible).decode_utf8().unwrap().into_owned();
        let start = format!("{database}/");
        prop_assert!(decoded.starts_with(&start));
        if database.len() <= 63 {
            prop_assert!(id.sql_name(".zst.gpg").len() <= 255);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic_and_what_it_accepts_it_prints_the_same(text in "(?s:.){0,40}|[a%2Ef./]{0,6}/[0-9TZ-]{14,18}(full|incr)?") {
        if let Ok(id) = text.parse::<BackupId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn ids_of_one_database_sort_as_their_text_does(a in 0_i64..200_000_000_000, b in 0_i64..200_000_000_000) {
        let of = |second| BackupId::next("shop", BackupKind::Full, Timestamp::from_second(second).unwrap(), None);
        prop_assert_eq!(of(a).cmp(&of(b)), of(a).to_string().cmp(&of(b).to_string()));
    }
}
