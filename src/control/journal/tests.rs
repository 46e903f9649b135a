use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

fn at() -> Timestamp {
    "2026-01-31T04:05:00Z".parse().unwrap()
}

fn asked(what: &str) -> Entry {
    Entry::Asked(Asked {
        by: "ann".to_owned(),
        role: "admin".to_owned(),
        from: "127.0.0.1".to_owned(),
        action: "cancel".to_owned(),
        what: what.to_owned(),
        outcome: "allowed".to_owned(),
    })
}

fn open(folder: &Path) -> (Journal, Vec<Record>) {
    let mut past = Vec::new();
    let journal = Journal::open(folder, at(), |record| past.push(record)).unwrap();
    (journal, past)
}

fn checked(journal: &Journal) -> Checked {
    journal.check(|_| {}).unwrap()
}

fn intact(lines: u64) -> Checked {
    Checked { lines, broken: None }
}

fn only_file(folder: &Path) -> PathBuf {
    let files = segments(folder).unwrap();
    assert_eq!(files.len(), 1);
    files[0].clone()
}

#[test]
fn what_is_written_is_there_after_a_restart_in_its_order() {
    let folder = TempDir::new().unwrap();
    let place = folder.path().join("made/here");
    let (journal, past) = open(&place);
    assert!(past.is_empty());
    for what in ["one", "two\nlines, a tab\t and \u{1b}[31m"] {
        journal.write(at(), asked(what)).unwrap();
    }
    drop(journal);
    let (journal, past) = open(&place);
    let entries: Vec<Entry> = past.iter().map(|record| record.entry.clone()).collect();
    assert_eq!(entries, [asked("one"), asked("two\nlines, a tab\t and \u{1b}[31m")]);
    journal.write(at(), asked("three")).unwrap();
    assert_eq!(checked(&journal), intact(3));
}

#[test]
fn a_line_that_is_changed_removed_or_put_in_between_is_found() {
    let folder = TempDir::new().unwrap();
    let (journal, _) = open(folder.path());
    for what in ["one", "two", "three"] {
        journal.write(at(), asked(what)).unwrap();
    }
    let path = only_file(folder.path());
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let spoilt = [
        (good.replace("\"two\"", "\"TWO\""), 2),
        (format!("{}\n{}\n", lines[0], lines[2]), 2),
        (format!("{}\n{}\n", lines[1], lines[2]), 1),
        (format!("{}\n{}\n{}\n{}\n", lines[0], lines[0], lines[1], lines[2]), 2),
        (format!("{}\nnoise\n{}\n{}\n", lines[0], lines[1], lines[2]), 2),
    ];
    for (text, record) in spoilt {
        fs::write(&path, &text).unwrap();
        let broken = checked(&journal).broken.unwrap();
        assert!(broken.ends_with(&format!("record {record}")), "{broken}: {text}");
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(checked(&journal), intact(3));
}

#[test]
fn an_end_that_is_cut_off_is_missed_at_once_and_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let (journal, _) = open(folder.path());
    for what in ["one", "two", "three"] {
        journal.write(at(), asked(what)).unwrap();
    }
    let path = only_file(folder.path());
    let good = fs::read_to_string(&path).unwrap();
    let first = good.lines().next().unwrap();
    fs::write(&path, format!("{first}\n")).unwrap();
    assert_eq!(checked(&journal).broken.unwrap(), "the end, record 2");
    drop(journal);
    // Also where the end is written anew, as long.
    let rewritten = good.replace("\"three\"", "\"THREE\"");
    for text in [format!("{first}\n"), String::new(), rewritten] {
        let elsewhere = TempDir::new().unwrap();
        for name in [path.file_name().unwrap(), "journal.head".as_ref()] {
            fs::copy(folder.path().join(name), elsewhere.path().join(name)).unwrap();
        }
        fs::write(elsewhere.path().join(path.file_name().unwrap()), &text).unwrap();
        for _ in 0..2 {
            let (journal, _) = open(elsewhere.path());
            journal.write(at(), asked("four")).unwrap();
            assert!(checked(&journal).broken.is_some(), "{text}");
        }
    }
    // A head that is older, as after a loss of power, misses nothing; nor does none.
    fs::write(&path, &good).unwrap();
    let head = fs::read(folder.path().join("journal.head")).unwrap();
    let (journal, _) = open(folder.path());
    journal.write(at(), asked("four")).unwrap();
    drop(journal);
    fs::write(folder.path().join("journal.head"), head).unwrap();
    let (journal, _) = open(folder.path());
    assert_eq!(checked(&journal), intact(4));
    drop(journal);
    fs::remove_file(folder.path().join("journal.head")).unwrap();
    let (journal, _) = open(folder.path());
    assert_eq!(checked(&journal), intact(4));
}

#[test]
fn a_torn_end_is_cut_off_and_said() {
    let folder = TempDir::new().unwrap();
    let (journal, _) = open(folder.path());
    journal.write(at(), asked("one")).unwrap();
    let head = fs::read(folder.path().join("journal.head")).unwrap();
    journal.write(at(), asked("two")).unwrap();
    let path = only_file(folder.path());
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    drop(journal);
    // Killed after any byte of the second line.
    for cut in first..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        fs::write(folder.path().join("journal.head"), &head).unwrap();
        let (journal, past) = open(folder.path());
        assert_eq!(past.len(), 1, "{cut}");
        let torn = u64::from(cut > first);
        assert_eq!(checked(&journal), intact(1 + torn), "{cut}");
        journal.write(at(), asked("three")).unwrap();
        assert_eq!(checked(&journal), intact(2 + torn), "{cut}");
    }
}

#[test]
fn a_long_journal_goes_on_in_the_next_file_and_the_chain_with_it() {
    let folder = TempDir::new().unwrap();
    let (journal, _) = open(folder.path());
    let long = "x".repeat(LONGEST / 2);
    let count = SEGMENT / (LONGEST as u64 / 2) + 5;
    for _ in 0..count {
        journal.write(at(), asked(&long)).unwrap();
    }
    assert_eq!(segments(folder.path()).unwrap().len(), 2);
    assert_eq!(checked(&journal), intact(count));
    drop(journal);
    let (journal, past) = open(folder.path());
    assert_eq!(past.len() as u64, count);
    // The first file is gone: all that is left does not follow from nothing.
    fs::remove_file(&segments(folder.path()).unwrap()[0]).unwrap();
    assert!(checked(&journal).broken.is_some());
    journal.write(at(), asked(&"x".repeat(LONGEST))).unwrap_err();
}

#[test]
fn one_process_at_a_time_has_the_folder() {
    let folder = TempDir::new().unwrap();
    let (journal, _) = open(folder.path());
    let error = Journal::open(folder.path(), at(), |_| {}).unwrap_err();
    assert_eq!(error.code(), Code::Busy);
    drop(journal);
    open(folder.path());
}
