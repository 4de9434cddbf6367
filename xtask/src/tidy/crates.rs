//! Which crate may depend on which: docs/architecture.md says why.

/// (crate, the crates of ours it may depend on); `None`: any.
const EDGES: &[(&str, Option<&[&str]>)] = &[
    ("api", Some(&["schema"])),
    ("cel", Some(&["api"])),
    ("schema", Some(&[])),
    ("store", Some(&[])),
    ("runtime", Some(&[])),
    ("client", Some(&["api"])),
    ("resources", Some(&["api", "cel", "schema"])),
    ("apiserver", Some(&["api", "cel", "client", "resources", "schema", "store"])),
    ("controllers", Some(&["api", "client", "resources"])),
    ("scheduler", Some(&["api", "client"])),
    ("net", Some(&["api", "client"])),
    ("images", Some(&["runtime"])),
    ("cri", Some(&["runtime"])),
    ("node", Some(&["api", "client", "cri", "images", "net", "runtime"])),
    ("testkit", None),
    ("canopus", None),
    ("benches", None),
    ("fuzz", None),
];

/// Problems of one crate's manifest.
pub fn check(path: &str, manifest: &str) -> Vec<String> {
    let package = field(manifest, "name").unwrap_or_default();
    let name = package.strip_prefix("canopus-").unwrap_or(&package);
    let mut problems = Vec::new();
    match EDGES.iter().find(|(known, _)| *known == name) {
        None => problems.push(format!("{path}: crate {name:?} is not in xtask's table of edges")),
        Some((_, None)) => {}
        Some((_, Some(allowed))) => {
            for other in dependencies(manifest).iter().filter(|other| !allowed.contains(&other.as_str())) {
                problems.push(format!("{path}: {name} must not depend on {other}"));
            }
        }
    }
    if !manifest.replace(' ', "").contains("[lints]\nworkspace=true") {
        problems.push(format!("{path}: the workspace's lints are not switched on ([lints] workspace = true)"));
    }
    problems
}

fn field(manifest: &str, name: &str) -> Option<String> {
    let value = manifest.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='))?;
    Some(value.trim().trim_matches('"').into())
}

/// Our crates in `[dependencies]` and `[build-dependencies]`, of any target. Tests may use what they like.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut counts = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            counts = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
        } else if let Some(rest) = line.strip_prefix("canopus-").filter(|_| counts) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
            found.push(rest[..end].into());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINTS: &str = "[lints]\nworkspace = true\n";

    #[test]
    fn edges_are_checked() {
        for (manifest, problems) in [
            ("name = \"canopus-store\"\n[dependencies]\nbytes = \"1\"\n", 0),
            ("name = \"canopus-store\"\n[dependencies]\ncanopus-api.workspace = true\n", 1),
            ("name = \"canopus-store\"\n[dev-dependencies]\ncanopus-api = { workspace = true }\n", 0),
            ("name = \"canopus-store\"\n[target.'cfg(unix)'.dependencies]\ncanopus-api = \"1\"\n", 1),
            (
                "name = \"canopus-net\"\n[dependencies]\ncanopus-api.workspace = true\ncanopus-node.workspace = true\n",
                1,
            ),
            ("name = \"canopus\"\n[dependencies]\ncanopus-node.workspace = true\n", 0),
            ("name = \"canopus-new\"\n", 1),
        ] {
            let found = check("Cargo.toml", &format!("{manifest}{LINTS}"));
            assert_eq!(found.len(), problems, "{manifest}{found:?}");
        }
        assert_eq!(check("Cargo.toml", "name = \"canopus-store\"\n").len(), 1);
    }
}
