use std::os::unix::fs::MetadataExt;

use super::*;

/// A store whose mounts are gone when dropped, whatever the test left.
struct Store {
    snapshots: Snapshots,
    temp: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self { snapshots: Snapshots::open(temp.path()).unwrap(), temp }
    }

    /// Adds a layer with these files on top of others.
    fn add(&self, parents: &[Digest], files: &[(&str, &str)]) -> Digest {
        let stream = layer(files);
        let hold = self.snapshots.hold().unwrap();
        self.snapshots.unpack(&hold, parents, &Digest::of(&stream), &stream[..], &Limits::default()).unwrap()
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.temp.path().join("tmp")).unwrap().count()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for id in self.snapshots.containers().unwrap() {
            self.snapshots.remove(&id).unwrap();
        }
    }
}

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, data.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn containers_see_merged_layers_and_keep_their_own_changes() {
    let store = Store::new();
    let base = store.add(&[], &[("a", "1"), ("b", "1"), ("d/x", "")]);
    let top = store.add(&[base], &[("b", "2"), (".wh.a", ""), ("d/.wh..wh..opq", ""), ("d/y", "")]);
    let root = store.snapshots.mount("one", &[base, top], false).unwrap();
    assert_eq!(fs::read_to_string(root.join("b")).unwrap(), "2");
    assert!(!root.join("a").exists() && !root.join("d/x").exists() && root.join("d/y").exists());
    let before = store.snapshots.container_usage("one").unwrap();
    fs::write(root.join("b"), vec![b'x'; 100_000]).unwrap();
    assert!(store.snapshots.container_usage("one").unwrap().bytes >= before.bytes + 100_000);
    let other = store.snapshots.mount("two", &[base, top], false).unwrap();
    assert_eq!(fs::read_to_string(other.join("b")).unwrap(), "2");
    assert_eq!(store.snapshots.mount("one", &[base, top], false).unwrap(), root);
    assert!(matches!(store.snapshots.mount("one", &[base], false), Err(SnapshotError::InUse(_))));
    assert_eq!(store.snapshots.containers().unwrap(), ["one", "two"]);
    store.snapshots.remove("one").unwrap();
    store.snapshots.remove("one").unwrap();
    assert_eq!(store.snapshots.containers().unwrap(), ["two"]);
    assert_eq!(store.leftovers(), 0);
}

#[test]
fn changes_survive_the_loss_of_the_mount() {
    let store = Store::new();
    let base = store.add(&[], &[("a", "1")]);
    let root = store.snapshots.mount("one", &[base], false).unwrap();
    fs::write(root.join("a"), "2").unwrap();
    mount::unmount(&root).unwrap();
    let again = Snapshots::open(store.temp.path()).unwrap();
    assert_eq!(fs::read_to_string(again.mount("one", &[base], false).unwrap().join("a")).unwrap(), "2");
}

#[test]
fn read_only_views_of_any_number_of_layers() {
    let store = Store::new();
    let base = store.add(&[], &[("a", "1")]);
    for (id, layers) in [("none", &[][..]), ("one", &[base])] {
        let root = store.snapshots.mount(id, layers, true).unwrap();
        assert_eq!(root.join("a").exists(), !layers.is_empty());
        assert_eq!(fs::write(root.join("b"), "").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o755);
    }
}

#[test]
fn as_many_layers_as_promised_fit_a_mount() {
    let store = Store::new();
    let mut layers = Vec::new();
    for number in 0..MAX_LAYERS {
        // Unpacking hundreds of layers would wait for the disk as often.
        let id = Digest::of(number.to_string().as_bytes());
        let content = store.snapshots.layer(&id).join("fs");
        fs::create_dir_all(&content).unwrap();
        fs::write(content.join(format!("f{number}")), "").unwrap();
        layers.push(id);
    }
    let root = store.snapshots.mount("many", &layers, false).unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), MAX_LAYERS);
    layers.push(layers[0]);
    assert!(matches!(store.snapshots.mount("more", &layers, false), Err(SnapshotError::TooManyLayers)));
}

#[test]
fn wrong_content_is_refused_without_a_trace() {
    let store = Store::new();
    let hold = store.snapshots.hold().unwrap();
    let (stream, other) = (layer(&[("a", "1")]), Digest::of(b"other"));
    let result = store.snapshots.unpack(&hold, &[], &other, &stream[..], &Limits::default());
    assert!(matches!(result, Err(SnapshotError::DiffId { .. })));
    let result = store.snapshots.unpack(&hold, &[], &Digest::of(&stream), &stream[..700], &Limits::default());
    assert!(result.is_err());
    assert!(matches!(
        store.snapshots.unpack(&hold, &[other], &Digest::of(&stream), &stream[..], &Limits::default()),
        Err(SnapshotError::NoLayer(_))
    ));
    assert!(!store.snapshots.has(&other));
    assert_eq!((store.leftovers(), store.snapshots.usage().unwrap()), (0, Usage::default()));
}

#[test]
fn collecting_spares_live_and_mounted_layers_and_waits_for_writers() {
    let store = Store::new();
    let [live, mounted, dead] = ["1", "2", "3"].map(|text| store.add(&[], &[("f", text)]));
    store.snapshots.mount("c", &[mounted], false).unwrap();
    let collect = || store.snapshots.gc(|| Ok::<_, SnapshotError>([live].into())).unwrap();
    let hold = store.snapshots.hold().unwrap();
    assert_eq!(collect(), None);
    drop(hold);
    let dead_usage = store.snapshots.layer_usage(&dead).unwrap();
    assert_eq!(collect(), Some(dead_usage));
    assert!(store.snapshots.has(&live) && store.snapshots.has(&mounted) && !store.snapshots.has(&dead));
    assert_eq!(collect(), Some(Usage::default()));
}

#[test]
fn opening_removes_the_leftovers_of_the_dead_only() {
    let store = Store::new();
    let working = store.snapshots.temp_dir().unwrap();
    fs::create_dir_all(store.temp.path().join("tmp/1-0/new/fs")).unwrap();
    Snapshots::open(store.temp.path()).unwrap();
    assert_eq!(store.leftovers(), 1);
    assert!(working.path().is_dir());
}

#[test]
fn ids_cannot_be_paths() {
    let store = Store::new();
    for id in ["", ".", "..", "a/b", "../x", ".hidden", "a\0", &"x".repeat(201)] {
        assert!(matches!(store.snapshots.mount(id, &[], false), Err(SnapshotError::Id(_))), "{id:?}");
    }
}

#[test]
fn chain_ids_are_the_specifications() {
    let digests = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
    let chain = chain_ids(&digests);
    assert_eq!(chain[0], digests[0]);
    assert_eq!(chain[2], Digest::of(format!("{} {}", chain[1], digests[2]).as_bytes()));
}
