//! What upstream v1.36 serves in stable versions, against what discovery says.

use super::*;
use std::collections::BTreeSet;

fn verbs_of(word: &str) -> Vec<&str> {
    match word {
        "*" => vec!["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "s" => vec!["get", "patch", "update"],
        "c" => vec!["create"],
        list => list.split(',').collect(),
    }
}

fn words(value: &Value) -> Vec<&str> {
    value.items().iter().map(Value::str).collect()
}

/// What discovery says otherwise than `line`; nothing when they agree.
fn difference(entry: &Value, line: &[&str]) -> Option<String> {
    let option = |prefix: &str| -> Vec<&str> {
        let found = line.iter().find_map(|word| word.strip_prefix(prefix));
        found.map(|list| list.split(',').collect()).unwrap_or_default()
    };
    let said = [
        (vec![entry["kind"].str()], vec![line[2]]),
        (vec![if entry["namespaced"].bool() { "namespaced" } else { "cluster" }], vec![line[3]]),
        (words(&entry["verbs"]), verbs_of(line[4])),
        (words(&entry["shortNames"]), option("short=")),
        (words(&entry["categories"]), option("in=")),
    ];
    let wrong = said.iter().find(|(ours, theirs)| ours != theirs);
    wrong.map(|(ours, theirs)| format!("{} {}: {ours:?} is not {theirs:?}", line[0], line[1]))
}

#[tokio::test]
async fn everything_stable_is_served() {
    let server = crate::testing::server().await;
    let table = server.catalog.table();
    let lists = &table.discovery().resources;
    let (mut missing, mut different) = (BTreeSet::new(), Vec::new());
    for line in include_str!("ga.txt").lines().filter(|line| !line.starts_with('#')) {
        let line: Vec<&str> = line.split(' ').collect();
        let group_version = if line[0] == "v1" { "/v1".to_string() } else { line[0].to_string() };
        let entries = lists.get(&group_version).map(|list| list["resources"].items()).unwrap_or_default();
        match entries.iter().find(|entry| entry["name"].str() == line[1]) {
            None => drop(missing.insert(format!("{} {}", line[0], line[1]))),
            Some(entry) => different.extend(difference(entry, &line)),
        }
    }
    assert_eq!(missing, BTreeSet::new());
    assert_eq!(different, Vec::<String>::new());
}
