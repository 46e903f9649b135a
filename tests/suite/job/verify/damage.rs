//! Backups that are not what their manifest says, in every way that a disk or a hand can bring about.

use std::fs;

use serde_json::Value;

use crate::job::verify::place::{Kept, flip, source};

type Problem = (String, Option<String>, String);

fn tables(problems: &[Problem]) -> Vec<&str> {
    problems.iter().filter_map(|(_, table, _)| table.as_deref()).collect()
}

fn files(problems: &[Problem]) -> Vec<&str> {
    let mut files: Vec<&str> = problems.iter().map(|(file, _, _)| file.as_str()).collect();
    files.dedup();
    files
}

fn name(path: &std::path::Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn one_flipped_bit_in_a_block_is_found_in_its_table_and_no_other() {
    for (major, compress) in [(15, "gzip"), (17, "zstd"), (17, "none")] {
        let kept = Kept::of(&source(major), &["--compress", compress]);
        let dump = kept.file("dump");
        for table in ["first", "long"] {
            let (start, length) = kept.block(table);
            // Its type, its number, a chunk's length, the middle, the last byte.
            for at in [start, start + 2, start + 7, start + length / 2, start + length - 1] {
                flip(&dump, at);
                let problems = kept.problems();
                assert_eq!(
                    tables(&problems),
                    [format!("public.{table}")],
                    "{compress} {at}: {problems:?}"
                );
                assert_eq!(files(&problems), [name(&dump)], "{problems:?}");
                flip(&dump, at);
            }
        }
        kept.is_good();
    }
}

#[test]
fn one_flipped_bit_among_the_large_objects_is_found() {
    for (major, compress) in [(15, "gzip"), (18, "zstd")] {
        let kept = Kept::of(&source(major), &["--compress", compress]);
        let block = &kept.manifest()["large_objects"][0];
        let number = |name: &str| usize::try_from(block[name].as_u64().unwrap()).unwrap();
        let at = number("offset") + number("length") / 2;
        flip(&kept.file("dump"), at);
        let problems = kept.problems();
        assert_eq!(tables(&problems), ["large objects"], "{problems:?}");
    }
}

#[test]
fn one_flipped_bit_in_any_small_file_is_found_in_that_file() {
    let kept = Kept::of(&source(17), &[]);
    let dump = name(&kept.file("dump")).to_owned();
    // In the archive's own head.
    for at in [0, 6, 11, 40, 2000] {
        flip(&kept.file("dump"), at);
        let problems = kept.problems();
        assert_eq!(files(&problems), [dump.as_str()], "{at}: {problems:?}");
        assert_eq!(tables(&problems), [""; 0], "{at}: {problems:?}");
        assert!(
            problems
                .iter()
                .any(|(_, _, what)| what.contains("table of contents differs")),
            "{problems:?}"
        );
        flip(&kept.file("dump"), at);
    }
    for role in ["toc", "globals", "system_info"] {
        let path = kept.file(role);
        for at in [0, fs::metadata(&path).unwrap().len() as usize / 2] {
            flip(&path, at);
            let problems = kept.problems();
            assert_eq!(files(&problems), [name(&path)], "{role} {at}: {problems:?}");
            flip(&path, at);
        }
    }
    let sums = kept.folder().join("SHA256SUMS");
    flip(&sums, 5);
    assert_eq!(files(&kept.problems()), ["SHA256SUMS"]);
    flip(&sums, 5);
    kept.is_good();
}

#[test]
fn a_plain_script_with_a_flipped_bit_is_found() {
    for compress in ["gzip", "zstd", "none"] {
        let kept = Kept::of(&source(17), &["--format", "plain", "--compress", compress]);
        let script = kept.file("sql");
        let middle = fs::metadata(&script).unwrap().len() as usize / 2;
        flip(&script, middle);
        assert_eq!(files(&kept.problems()), [name(&script)], "{compress}");
    }
}

#[test]
fn an_object_of_another_length_and_a_missing_one_are_told() {
    let kept = Kept::of(&source(17), &[]);
    let dump = kept.file("dump");
    let bytes = fs::read(&dump).unwrap();
    let length = format!("the manifest says {}", bytes.len());
    for other in [
        &bytes[..bytes.len() - 1],
        &bytes[..10],
        &[],
        &[&bytes[..], b"x"].concat(),
    ] {
        fs::write(&dump, other).unwrap();
        let problems = kept.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].2.contains(&length), "{problems:?}");
    }
    fs::write(&dump, &bytes).unwrap();
    for role in ["dump", "toc", "globals"] {
        let path = kept.file(role);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let problems = kept.problems();
        assert_eq!(files(&problems), [name(&path)], "{problems:?}");
        assert!(problems[0].2.contains("is missing"), "{problems:?}");
        fs::write(&path, bytes).unwrap();
    }
    kept.is_good();
}

#[test]
fn two_blocks_of_the_same_length_that_have_changed_places_are_both_told() {
    // Uncompressed, first and second have the same length to the byte.
    let kept = Kept::of(&source(17), &["--compress", "none"]);
    let ((first, length), (second, other)) = (kept.block("first"), kept.block("second"));
    assert_eq!(length, other);
    let dump = kept.file("dump");
    let whole = fs::read(&dump).unwrap();
    let swapped = |from: usize| {
        let mut bytes = whole.clone();
        bytes[first + from..first + length].copy_from_slice(&whole[second + from..second + length]);
        bytes[second + from..second + length].copy_from_slice(&whole[first + from..first + length]);
        fs::write(&dump, bytes).unwrap();
    };
    // With their numbers, and their contents alone.
    for from in [0, 6] {
        swapped(from);
        let problems = kept.problems();
        assert_eq!(tables(&problems), ["public.first", "public.second"], "{problems:?}");
    }
}

#[test]
fn a_manifest_that_is_cut_newer_foreign_or_points_elsewhere_is_not_followed() {
    let kept = Kept::of(&source(17), &[]);
    let path = kept.folder().join("manifest.json");
    let whole = fs::read(&path).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut manifest: Value = serde_json::from_slice(&whole).unwrap();
        change(&mut manifest);
        manifest.to_string().into_bytes()
    };
    let outside = kept.site.path().join("outside");
    fs::write(&outside, "secret").unwrap();
    for (what, bytes) in [
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("newer", with(&|manifest| manifest["schema"] = 9.into())),
        (
            "foreign",
            with(&|manifest| manifest["id"] = "other/20250101T000000Z-full".into()),
        ),
        (
            "outside",
            with(&|manifest| manifest["files"]["globals"]["name"] = "../../../outside".into()),
        ),
        (
            "absolute",
            with(&|manifest| manifest["files"]["dump"]["name"] = outside.to_str().unwrap().into()),
        ),
    ] {
        fs::write(&path, bytes).unwrap();
        let (report, exit, _) = kept.verify(&[&kept.id]);
        assert_eq!(
            (exit, &report["error"]["code"]),
            (40, &"INTEGRITY".into()),
            "{what}: {report}"
        );
        assert!(
            report["error"]["message"].as_str().unwrap().contains(&kept.id),
            "{what}: {report}"
        );
        // Nothing is written about what cannot be read.
        assert!(!kept.folder().join("verification.json").exists(), "{what}");
    }
    // Figures that lead astray, in a manifest that is otherwise whole.
    for (what, change) in [
        (
            "offset",
            &(|manifest: &mut Value| manifest["tables"][0]["offset"] = u64::MAX.into()) as &dyn Fn(&mut Value),
        ),
        ("length", &|manifest| manifest["tables"][0]["length"] = u64::MAX.into()),
        ("sha256", &|manifest| {
            manifest["tables"][0]["sha256"] = "no digest".into();
        }),
        ("tables", &|manifest| manifest["tables"] = serde_json::json!([])),
        ("rows", &|manifest| manifest["tables"][0]["rows"] = 1_000_000_000.into()),
        ("bytes", &|manifest| manifest["files"]["dump"]["bytes"] = 1_u64.into()),
    ] {
        fs::write(&path, with(change)).unwrap();
        let (report, exit, _) = kept.verify(&[&kept.id]);
        assert_eq!(
            (exit, &report["error"]["code"]),
            (40, &"INTEGRITY".into()),
            "{what}: {report}"
        );
    }
    fs::write(&path, &whole).unwrap();
    kept.is_good();
}
