//! Which secrets are kept, and which of them rows name, as a backup has it.

use archestra_tests::{Home, Start};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path, time::Duration};

/// Secrets that no row names are removed once they are older than this.
const GRACE: Duration = Duration::from_secs(3600);

/// References of secrets.
pub(crate) struct Kept {
    pub(crate) stored: BTreeSet<String>,
    pub(crate) named: BTreeSet<String>,
}

impl Kept {
    /// Those that no row names. None is named that is not there.
    pub(crate) fn unnamed(&self) -> BTreeSet<String> {
        let Self { stored, named } = self;
        assert!(named.len() > 2 && named.is_subset(stored), "{:?}", named.difference(stored));
        stored - named
    }
}

/// The lines of a backup, of which it looks at secrets and at what names them.
pub(crate) struct Backup {
    lines: Vec<Value>,
}

impl Backup {
    /// Has one made.
    pub(crate) fn of(home: &Home, start: &Start, file: &Path) -> Self {
        let (code, said) = home.run(&["backup", "--to", file.to_str().unwrap()], start);
        assert_eq!(code, 0, "{said}");
        let text = fs::read_to_string(file).unwrap();
        Self { lines: text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() }
    }

    pub(crate) fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn named(&self) -> BTreeSet<String> {
        let documents = self.rows(&["entries", "installations"]).map(|row| row.last().unwrap().as_str().unwrap());
        let documents = documents.map(|text| serde_json::from_str::<Value>(text).unwrap());
        documents.filter_map(|document| document["secrets"].as_str().map(str::to_owned)).collect()
    }

    /// What is kept in the database.
    pub(crate) fn kept(&self) -> Kept {
        let stored = self.rows(&["secrets"]).map(|row| row[0].as_str().unwrap().to_owned());
        Kept { stored: stored.collect(), named: self.named() }
    }

    fn rows(&self, tables: &'static [&'static str]) -> impl Iterator<Item = &Vec<Value>> {
        let of = |line: &&Value| line["table"].as_str().is_some_and(|table| tables.contains(&table));
        self.lines.iter().filter(of).filter_map(|line| line["row"].as_array())
    }

    /// The last secret once more, under a reference of its own.
    pub(crate) fn plant_one_unnamed(&mut self) {
        let mut planted = self.lines.iter().rfind(|line| line["table"] == "secrets").unwrap().clone();
        let reference = planted["row"][0].as_str().unwrap();
        let other = if reference.ends_with('0') { "1" } else { "0" };
        planted["row"][0] = format!("{}{other}", &reference[..reference.len() - 1]).into();
        let end = self.lines.len() - 1;
        let counted = &mut self.lines[end]["end"]["secrets"];
        *counted = (counted.as_u64().unwrap() + 1).into();
        self.lines.insert(end, planted);
    }

    /// Makes a secret older than any that may be about to be named.
    pub(crate) fn age(&mut self, reference: &str) {
        let line = self.lines.iter_mut().find(|line| line["table"] == "secrets" && line["row"][0] == reference);
        line.unwrap()["row"][0] = Self::older(reference).into();
    }

    /// The reference of a secret of the same owner that is so much older: it ends in a UUID that begins with the time.
    pub(crate) fn older(reference: &str) -> String {
        let (path, unique) = reference.rsplit_once('/').unwrap();
        let made = u64::from_str_radix(&format!("{}{}", &unique[..8], &unique[9..13]), 16).unwrap();
        let older = format!("{:012x}", made - 2 * u64::try_from(GRACE.as_millis()).unwrap());
        format!("{path}/{}-{}{}", &older[..8], &older[8..], &unique[13..])
    }
}
