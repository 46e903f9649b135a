//! The only table of settings, one file for each subject. The flags of the command line, the variables that pgstow
//! reads, the keys of the TOML file, the help text and the check for secrets all come from here.

mod aws;
mod backup;
mod channels;
mod database;
mod function;
mod login;
mod postgres;
mod s3;
mod serve;
mod signing;
mod store;

use super::setting::Setting;

/// In the order of the help text: a person needs the first ones first.
const NOUNS: &[&[Setting]] = &[
    database::SETTINGS,
    store::SETTINGS,
    backup::SETTINGS,
    signing::SETTINGS,
    channels::SETTINGS,
    login::SETTINGS,
    postgres::SETTINGS,
    function::SETTINGS,
    s3::SETTINGS,
    aws::SETTINGS,
    serve::SETTINGS,
];

pub static SETTINGS: &[Setting] = &ALL;

const COUNT: usize = {
    let (mut count, mut noun) = (0, 0);
    while noun < NOUNS.len() {
        count += NOUNS[noun].len();
        noun += 1;
    }
    count
};

static ALL: [Setting; COUNT] = {
    let mut all = [NOUNS[0][0]; COUNT];
    let (mut at, mut noun) = (0, 0);
    while noun < NOUNS.len() {
        let mut setting = 0;
        while setting < NOUNS[noun].len() {
            all[at] = NOUNS[noun][setting];
            at += 1;
            setting += 1;
        }
        noun += 1;
    }
    all
};
