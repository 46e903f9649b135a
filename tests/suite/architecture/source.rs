//! Which module of a crate uses which, read from its text: `use` declarations, and paths that begin with `crate`,
//! `super` or `self`. A name that a module imports is followed to the module that it comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::tokens::{Token, tokens};

/// From the crate's root.
pub type ModulePath = Vec<String>;

/// Such as the fuzz targets' functions: they stand beside the rooms.
const BESIDE: &[&str] = &["main.rs", "lib.rs", "fuzzing.rs", "fuzzing"];
/// Imports that are followed from one name to the next.
const DEEPEST: usize = 8;

pub struct Modules(BTreeMap<ModulePath, Module>);

#[derive(Default)]
struct Module {
    file: String,
    /// The names that it imports, and the path that each comes from.
    imports: BTreeMap<String, Vec<String>>,
    /// The paths in it, and their lines.
    paths: Vec<(Vec<String>, usize)>,
    /// Its modules that only tests have.
    for_tests: BTreeSet<String>,
}

/// One module uses another.
pub struct Use {
    pub by: ModulePath,
    pub module: ModulePath,
    /// File and line.
    pub at: String,
}

pub struct Circle {
    pub folder: String,
    pub modules: BTreeSet<String>,
    /// Each use in it, as file and line.
    pub uses: Vec<String>,
}

impl Modules {
    pub fn read(root: &Path) -> Self {
        let mut modules = BTreeMap::new();
        read_folder(root, &mut Vec::new(), &mut modules);
        let only_tests: Vec<ModulePath> = modules
            .iter()
            .flat_map(|(path, module): (&ModulePath, &Module)| {
                module
                    .for_tests
                    .iter()
                    .map(|name| [path.as_slice(), std::slice::from_ref(name)].concat())
            })
            .collect();
        modules.retain(|path, _| !only_tests.iter().any(|one| path.starts_with(one)));
        Self(modules)
    }

    /// Every use of one module by another, but for those by the modules around and within it. A name that the other
    /// has imported itself is `followed` to where it comes from, or counts as its own.
    pub fn uses(&self, followed: bool) -> Vec<Use> {
        let mut uses = Vec::new();
        for (by, module) in &self.0 {
            for (path, line) in &module.paths {
                let Some(path) = self.in_root(by, path) else {
                    continue;
                };
                let used = self.home(&path, if followed { 0 } else { DEEPEST });
                if !used.is_empty() && !used.starts_with(by) && !by.starts_with(&used) {
                    uses.push(Use {
                        by: by.clone(),
                        module: used,
                        at: format!("src/{}:{line}", module.file),
                    });
                }
            }
        }
        uses
    }

    /// Modules of one folder below the root that use each other, directly or by others of it.
    pub fn circles(&self) -> Vec<Circle> {
        let mut folders: BTreeMap<ModulePath, BTreeMap<(String, String), Vec<String>>> = BTreeMap::new();
        for one in self.uses(true) {
            let same = one
                .by
                .iter()
                .zip(&one.module)
                .take_while(|(by, used)| by == used)
                .count();
            // The rooms themselves have their table.
            if same == 0 {
                continue;
            }
            let pair = (one.by[same].clone(), one.module[same].clone());
            let folder = folders.entry(one.by[..same].to_vec()).or_default();
            folder.entry(pair).or_default().push(one.at);
        }
        let mut circles = Vec::new();
        for (folder, uses) in folders {
            let reached = reached(uses.keys());
            let around = |name: &String| -> BTreeSet<String> {
                let back = |other: &&String| reached.get(*other).is_some_and(|back| back.contains(name));
                reached[name].iter().filter(back).cloned().collect()
            };
            let sets: BTreeSet<BTreeSet<String>> = reached.keys().map(around).filter(|set| !set.is_empty()).collect();
            for modules in sets {
                let inside = uses
                    .iter()
                    .filter(|((by, used), _)| modules.contains(by) && modules.contains(used));
                circles.push(Circle {
                    folder: folder.join("/"),
                    uses: inside
                        .map(|((by, used), at)| format!("{by} uses {used}: {}", at.join(", ")))
                        .collect(),
                    modules,
                });
            }
        }
        circles
    }

    fn in_root(&self, by: &ModulePath, path: &[String]) -> Option<Vec<String>> {
        match path[0].as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([by.as_slice(), &path[1..]].concat()),
            "super" => {
                let up = path.iter().take_while(|word| *word == "super").count();
                Some([&by[..by.len().checked_sub(up)?], &path[up..]].concat())
            }
            first => {
                let child = [by.as_slice(), &[first.to_owned()]].concat();
                self.0.contains_key(&child).then(|| [by.as_slice(), path].concat())
            }
        }
    }

    /// The module that a path's last name comes from.
    fn home(&self, path: &[String], depth: usize) -> ModulePath {
        let mut here = ModulePath::new();
        for (at, name) in path.iter().enumerate() {
            let next = [here.as_slice(), std::slice::from_ref(name)].concat();
            if self.0.contains_key(&next) {
                here = next;
                continue;
            }
            let imported = self.0.get(&here).and_then(|module| module.imports.get(name));
            let imported = imported.and_then(|path| self.in_root(&here, path));
            return match imported.filter(|path| depth < DEEPEST && *path != next) {
                Some(from) => self.home(&[from.as_slice(), &path[at + 1..]].concat(), depth + 1),
                None => here,
            };
        }
        here
    }
}

/// Of each name all that it leads to.
fn reached<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> BTreeMap<String, BTreeSet<String>> {
    let mut reached: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (by, used) in pairs {
        reached.entry(by.clone()).or_default().insert(used.clone());
    }
    loop {
        let mut grown = false;
        for name in reached.keys().cloned().collect::<Vec<_>>() {
            let further: BTreeSet<String> = reached[&name]
                .iter()
                .filter_map(|next| reached.get(next))
                .flatten()
                .cloned()
                .collect();
            let known = reached.get_mut(&name).unwrap();
            let before = known.len();
            known.extend(further);
            grown |= known.len() > before;
        }
        if !grown {
            return reached;
        }
    }
}

fn read_folder(folder: &Path, path: &mut ModulePath, modules: &mut BTreeMap<ModulePath, Module>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if path.is_empty() && BESIDE.contains(&name.as_str()) {
            continue;
        }
        let word = name.trim_end_matches(".rs").to_owned();
        path.push(word);
        if entry.file_type().unwrap().is_dir() {
            read_folder(&entry.path(), path, modules);
        } else if name.ends_with(".rs") {
            let mut module = read_module(&fs::read_to_string(entry.path()).unwrap());
            module.file = format!("{}.rs", path.join("/"));
            modules.insert(path.clone(), module);
        }
        path.pop();
    }
}

fn read_module(text: &str) -> Module {
    let mut module = Module::default();
    let tokens = tokens(text);
    let mut rest = &tokens[..];
    while let Some((token, after)) = rest.split_first() {
        if let Some(item) = after_cfg_test(rest) {
            rest = skip_item(item, &mut module.for_tests);
        } else if token.text == "use" {
            let end = after.iter().position(|token| token.text == ";").unwrap_or(after.len());
            let mut found = Vec::new();
            read_tree(&mut after[..end].iter(), &mut Vec::new(), &mut found);
            for (path, name) in found {
                module.imports.insert(name, path.clone());
                module.paths.push((path, token.line));
            }
            rest = &after[end..];
        } else if ["crate", "super", "self"].contains(&token.text.as_str()) {
            let words = rest.chunks(2).map_while(|pair| {
                let goes_on = pair.get(1).is_some_and(|token| token.text == "::");
                pair[0].is_word().then_some((pair[0].text.clone(), goes_on))
            });
            let mut path = Vec::new();
            for (word, goes_on) in words {
                path.push(word);
                if !goes_on {
                    break;
                }
            }
            rest = &rest[path.len() * 2 - 1..];
            if path.len() > 1 {
                module.paths.push((path, token.line));
            }
        } else {
            rest = after;
        }
    }
    module
}

/// What follows `#[cfg(test)]`.
fn after_cfg_test(tokens: &[Token]) -> Option<&[Token]> {
    let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
    let is_it = tokens.len() > attribute.len() && tokens.iter().zip(attribute).all(|(token, word)| token.text == word);
    is_it.then(|| &tokens[attribute.len()..])
}

/// What follows the item, which ends with its first `;` or with its braces. The name of a module is kept.
fn skip_item<'a>(tokens: &'a [Token], modules: &mut BTreeSet<String>) -> &'a [Token] {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "mod" if depth == 0 => drop(modules.insert(tokens[at + 1].text.clone())),
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 && ["}", ";"].contains(&token.text.as_str()) {
            return &tokens[at + 1..];
        }
    }
    &[]
}

/// The paths of a `use` declaration, each with the name that it gives.
fn read_tree<'a>(
    tokens: &mut impl Iterator<Item = &'a Token>,
    before: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, String)>,
) {
    let around = before.len();
    let mut renamed = false;
    let mut name: Option<String> = None;
    let give = |path: &mut Vec<String>, name: &mut Option<String>, found: &mut Vec<(Vec<String>, String)>| {
        if path.len() > around {
            let is_the_folder = path.len() > 1 && path.last().is_some_and(|last| last == "self");
            path.truncate(path.len() - usize::from(is_the_folder));
            let given = name.take().or_else(|| path.last().cloned());
            found.extend(given.map(|given| (path.clone(), given)));
        }
        path.truncate(around);
    };
    while let Some(token) = tokens.next() {
        match token.text.as_str() {
            "{" => {
                read_tree(tokens, before, found);
                before.truncate(around);
            }
            "}" => {
                give(before, &mut name, found);
                return;
            }
            "," => {
                give(before, &mut name, found);
                renamed = false;
            }
            "as" => renamed = true,
            _ if !token.is_word() => {}
            word if renamed => name = Some(word.to_owned()),
            word => before.push(word.to_owned()),
        }
    }
    give(before, &mut name, found);
}

#[test]
fn paths_are_found_in_every_spelling() {
    let module = read_module(
        r#"
        use crate::store::{self, local::{Local, Kind as Sort}, s3::S3};
        // use crate::not::this;
        fn f<'a>(x: &'a str) -> super::Thing { crate::run::stop("crate::nor::this"); self.x('"', "\"") }
        #[cfg(test)]
        mod tests { use crate::never::this; }
        #[cfg(test)]
        pub(crate) mod memory;
        "#,
    );
    let paths: Vec<String> = module.paths.iter().map(|(path, _)| path.join("::")).collect();
    let expected = [
        "crate::store",
        "crate::store::local::Local",
        "crate::store::local::Kind",
        "crate::store::s3::S3",
        "super::Thing",
        "crate::run::stop",
    ];
    assert_eq!(paths, expected);
    assert_eq!(module.imports["Sort"].join("::"), "crate::store::local::Kind");
    assert_eq!(module.paths[4].1, 4);
    assert!(module.for_tests.contains("memory") && module.for_tests.contains("tests"));
}

#[test]
fn a_circle_is_found_through_the_folder_and_beyond_two() {
    let module = |(path, text): (&str, &str)| (path.split('/').map(str::to_owned).collect(), read_module(text));
    let texts = [
        ("room", "mod a; mod b; mod c; mod d; pub use b::B;"),
        ("room/a", "use super::B;"),
        ("room/b", "use super::c::C;"),
        ("room/c", "mod deep;"),
        ("room/c/deep", "use crate::room::a::A;"),
        ("room/d", "use super::a::A;"),
    ];
    let circles = Modules(texts.into_iter().map(module).collect()).circles();
    let found: Vec<_> = circles
        .iter()
        .map(|circle| {
            (
                circle.folder.as_str(),
                circle.modules.iter().map(String::as_str).collect(),
            )
        })
        .collect();
    assert_eq!(found, [("room", vec!["a", "b", "c"])]);
    assert_eq!(circles[0].uses.len(), 3);
}
