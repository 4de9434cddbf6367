//! Objects in files: `-f FILE`, `-f DIRECTORY`, `-f -`.

use anyhow::{Context, Result, bail};
use canopus_api::{Gvk, Value, yaml};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What one file may hold.
const MAX_FILE: u64 = 64 << 20;

/// An object and the file it is from.
#[derive(Debug, PartialEq)]
pub struct Manifest {
    pub source: String,
    pub object: Value,
}

impl Manifest {
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].str()
    }

    pub fn kind(&self) -> Gvk {
        Gvk::of(&self.object)
    }

    /// The object's namespace, which must not contradict the one asked for.
    pub fn namespace(&self, asked: &str, given: bool) -> Result<String> {
        let own = self.object["metadata"]["namespace"].str();
        if given && !own.is_empty() && own != asked {
            bail!(
                "the namespace from the provided object {own:?} does not match the namespace {asked:?}. You must pass \
                 '--namespace={own}' to perform this operation."
            );
        }
        Ok(if own.is_empty() { asked.into() } else { own.into() })
    }
}

/// Every object of all files, lists taken apart. Nothing is left out: one bad document fails them all.
pub fn read(names: &[PathBuf], recursive: bool) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for name in names {
        if name == Path::new("-") {
            parse("STDIN", &text(std::io::stdin().lock()).context("failed to read STDIN")?, &mut manifests)?;
            continue;
        }
        for path in expand(name, recursive, true)? {
            let shown = path.display().to_string();
            let file = fs::File::open(&path).with_context(|| format!("failed to open {shown}"))?;
            let text = text(file).with_context(|| format!("failed to read {shown}"))?;
            parse(&shown, &text, &mut manifests)?;
        }
    }
    if manifests.is_empty() {
        bail!("no objects passed to apply");
    }
    Ok(manifests)
}

fn text(reader: impl Read) -> Result<String> {
    let mut text = String::new();
    let read = reader.take(MAX_FILE + 1).read_to_string(&mut text)? as u64;
    if read > MAX_FILE {
        bail!("it has more than {MAX_FILE} bytes");
    }
    Ok(text)
}

/// A file named outright is read whatever it is called; of a directory, the JSON and YAML files.
fn expand(path: &Path, recursive: bool, outright: bool) -> Result<Vec<PathBuf>> {
    let failed = || format!("failed to read {}", path.display());
    if !fs::metadata(path).with_context(failed)?.is_dir() {
        let known = path.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml");
        return Ok(if outright || known { vec![path.into()] } else { Vec::new() });
    }
    if !outright && !recursive {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(failed)?;
    let mut entries: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        files.extend(expand(&entry, recursive, false)?);
    }
    Ok(files)
}

fn parse(source: &str, text: &str, out: &mut Vec<Manifest>) -> Result<()> {
    let documents = yaml::parse_documents(text).with_context(|| format!("error parsing {source}"))?;
    for document in documents {
        if let Some(error) = document.strict_error() {
            bail!("error parsing {source}: {error}");
        }
        if !document.value.is_null() {
            add(source, document.value, out)?;
        }
    }
    Ok(())
}

fn add(source: &str, mut object: Value, out: &mut Vec<Manifest>) -> Result<()> {
    for (field, name) in [("apiVersion", "apiVersion"), ("kind", "Kind")] {
        if object[field].str().is_empty() {
            bail!(
                "error validating {source:?}: Object '{name}' is missing in '{}'",
                canopus_api::json::to_string(&object)
            );
        }
    }
    if object["kind"].str().ends_with("List") && object["items"].as_array().is_some() {
        let items = object.remove("items").unwrap_or_default();
        for item in items.items() {
            add(source, item.clone(), out)?;
        }
        return Ok(());
    }
    if object["metadata"]["name"].str().is_empty() {
        bail!("error when reading {source:?}: resource name may not be empty");
    }
    out.push(Manifest { source: source.into(), object });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(manifests: &[Manifest]) -> Vec<&str> {
        manifests.iter().map(Manifest::name).collect()
    }

    #[test]
    fn documents_and_lists_are_taken_apart() {
        let text = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n- \
                    {apiVersion: v1, kind: Secret, metadata: {name: b}}\n";
        let mut out = Vec::new();
        parse("f", text, &mut out).unwrap();
        assert_eq!(names(&out), ["a", "b"]);
    }

    #[test]
    fn bad_documents_are_refused() {
        for (text, why) in [
            ("a: [", "error parsing f"),
            ("kind: Pod\nkind: Pod", "already set"),
            ("kind: Pod\nmetadata: {name: x}", "Object 'apiVersion' is missing in"),
            ("apiVersion: v1\nmetadata: {name: x}", "Object 'Kind' is missing in"),
            ("apiVersion: v1\nkind: Pod", "resource name may not be empty"),
        ] {
            let error = parse("f", text, &mut Vec::new()).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
    }

    #[test]
    fn directories_are_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for (file, name) in [("b.yaml", "b"), ("a.json", "a"), ("sub/c.yml", "c"), ("README", "no")] {
            let text =
                format!("{{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {{\"name\": \"{name}\"}}}}");
            fs::write(dir.path().join(file), text).unwrap();
        }
        let root = [dir.path().to_path_buf()];
        assert_eq!(names(&read(&root, false).unwrap()), ["a", "b"]);
        assert_eq!(names(&read(&root, true).unwrap()), ["a", "b", "c"]);
        assert!(read(&[dir.path().join("missing")], false).is_err());
    }

    #[test]
    fn a_contradicting_namespace_is_refused() {
        let manifest = Manifest { source: "f".into(), object: canopus_api::value!({"metadata": {"namespace": "a"}}) };
        assert_eq!(manifest.namespace("default", false).unwrap(), "a");
        assert_eq!(manifest.namespace("a", true).unwrap(), "a");
        assert!(manifest.namespace("b", true).is_err());
    }
}
