//! The source, held to ARCHITECTURE.md: which room may use which, and that modules that lie beside each other use
//! each other in one direction.

mod source;
mod surface;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{ModulePath, Modules};

/// One row of the table of rooms.
struct Room {
    name: String,
    may_use: BTreeSet<String>,
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn architecture() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap()
}

/// The table, from the top to the bottom.
fn rooms(text: &str) -> Vec<Room> {
    let rows = text.lines().skip_while(|line| !line.starts_with("| room |")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
            assert_eq!(cells.len(), 3, "{row}");
            Room {
                name: quoted(cells[0]).next().unwrap().to_owned(),
                may_use: quoted(cells[2]).map(str::to_owned).collect(),
            }
        })
        .collect()
}

/// The room with the longest name that the module lies in.
fn room_of<'a>(rooms: &'a [Room], module: &ModulePath) -> Option<&'a Room> {
    let place = module.join("/");
    let holds = |room: &&Room| place == room.name || place.starts_with(&format!("{}/", room.name));
    rooms.iter().filter(holds).max_by_key(|room| room.name.len())
}

#[test]
fn every_room_uses_only_what_the_page_lets_it_use() {
    let rooms = rooms(&architecture());
    assert!(rooms.len() > 10, "the table of rooms was not found");
    for (at, room) in rooms.iter().enumerate() {
        let below: BTreeSet<&str> = rooms[at + 1..].iter().map(|room| room.name.as_str()).collect();
        for used in &room.may_use {
            assert!(
                below.contains(used.as_str()),
                "`{}` stands above `{used}`, and uses it",
                room.name
            );
        }
    }
    let modules = Modules::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let (mut wrong, mut unused) = (Vec::new(), BTreeMap::new());
    for room in &rooms {
        unused.insert(room.name.as_str(), room.may_use.clone());
    }
    for used in modules.uses(false) {
        let Some(room) = room_of(&rooms, &used.by) else {
            wrong.push(format!("{} lies in no room", used.at));
            continue;
        };
        let Some(other) = room_of(&rooms, &used.module).filter(|other| other.name != room.name) else {
            continue;
        };
        if room.may_use.contains(&other.name) {
            unused.get_mut(room.name.as_str()).unwrap().remove(&other.name);
        } else {
            wrong.push(format!("{}: `{}` may not use `{}`", used.at, room.name, other.name));
        }
    }
    assert!(wrong.is_empty(), "against ARCHITECTURE.md:\n{}", wrong.join("\n"));
    unused.retain(|_, rooms| !rooms.is_empty());
    assert!(
        unused.is_empty(),
        "the page lets rooms use what they do not: {unused:?}"
    );
}

#[test]
fn modules_beside_each_other_make_no_circle() {
    let modules = Modules::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let circles: Vec<String> = modules
        .circles()
        .iter()
        .map(|circle| {
            format!(
                "{}: {:?}\n  {}",
                circle.folder,
                circle.modules,
                circle.uses.join("\n  ")
            )
        })
        .collect();
    assert!(
        circles.is_empty(),
        "these use each other in a circle:\n{}",
        circles.join("\n")
    );
}
