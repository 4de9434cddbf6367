//! Images from the builder through import to a mounted root. Needs root.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use canopus_images::build::{BuildSpec, busybox, docker_archive, oci_archive};
use canopus_images::{Digest, Image, ImageConfig, ImageError, ImageStore, Images, Limits, Usage, users};
use proptest::prelude::*;

/// A store in a directory of its own, unmounted when dropped.
struct Store {
    store: ImageStore,
    temp: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self { store: ImageStore::open(temp.path()).unwrap(), temp }
    }

    fn add(&self, spec: BuildSpec) -> Image {
        let mut images = self.store.import_archive(&oci(&[spec])[..], None).unwrap();
        assert_eq!(images.len(), 1);
        images.remove(0)
    }

    fn entries(&self, dir: &str) -> usize {
        fs::read_dir(self.temp.path().join("snapshots").join(dir)).unwrap().count()
    }

    fn assert_empty(&self, what: &str) {
        assert_eq!(self.store.list().unwrap(), [], "{what}");
        assert_eq!((self.entries("tmp"), self.entries("layers")), (0, 0), "{what} left something behind");
    }
}

impl Deref for Store {
    type Target = ImageStore;

    fn deref(&self) -> &ImageStore {
        &self.store
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for id in self.store.containers().unwrap() {
            self.store.release(&id).unwrap();
        }
    }
}

fn oci(specs: &[BuildSpec]) -> Vec<u8> {
    let mut archive = Vec::new();
    oci_archive(specs, &mut archive).unwrap();
    archive
}

fn docker(specs: &[BuildSpec]) -> Vec<u8> {
    let mut archive = Vec::new();
    docker_archive(specs, &mut archive).unwrap();
    archive
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn spec() -> BuildSpec {
    let mut spec = BuildSpec::new("hello:1")
        .file("/bin/app", 0o4755, "#!/bin/true\n")
        .file("/etc/passwd", 0o644, "root:x:0:0::/root:\nweb:x:9:8::/www:\n")
        .file("/old", 0o644, "old")
        .file("/dir/old", 0o644, "old")
        .dir("/tmp", 0o1777)
        .layer()
        .whiteout("/old")
        .opaque("/dir")
        .file("/dir/new", 0o600, "new")
        .owned_by(9, 8)
        .symlink("/link", "dir/new")
        .hard_link("/same", "/dir/new")
        .file("/tmp/f", 0o644, "")
        .env("A", "b")
        .entrypoint(&["/bin/app"])
        .cmd(&["x", "y"])
        .workdir("/dir")
        .user("web");
    spec.config.stop_signal = "SIGINT".into();
    spec.config.exposed_ports = vec!["80/tcp".into()];
    spec.config.volumes = vec!["/data".into()];
    spec.config.labels = BTreeMap::from([("k".into(), "v".into())]);
    spec
}

/// An archive of files with these names, as odd as wished.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn unpack(archive: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tar::Archive::new(archive).unpack(dir.path()).unwrap();
    dir
}

#[test]
fn every_form_of_an_archive_gives_the_same_running_image() {
    assert!(oci(&[spec()]) == oci(&[spec()]), "the builder is not reproducible");
    let uncompressed = spec().uncompressed();
    let layout = unpack(&oci(&[spec()]));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), gzip(&docker(&[spec()]))).unwrap();
    type Import<'a> = &'a dyn Fn(&Store) -> canopus_images::Result<Vec<Image>>;
    let forms: [(&str, Import<'_>); 6] = [
        ("oci", &|store| store.import_archive(&oci(&[spec()])[..], None)),
        ("oci gzip", &|store| store.import_archive(&gzip(&oci(&[spec()]))[..], None)),
        ("oci, plain layers", &|store| store.import_archive(&oci(std::slice::from_ref(&uncompressed))[..], None)),
        ("oci directory", &|store| store.import(layout.path(), None)),
        ("docker", &|store| store.import_archive(&docker(&[spec()])[..], None)),
        ("docker gzip file", &|store| store.import(file.path(), None)),
    ];
    let mut ids = Vec::new();
    for (form, import) in forms {
        let store = Store::new();
        let images = import(&store).unwrap();
        assert_eq!(images, store.list().unwrap(), "{form}");
        let image = &images[0];
        assert_eq!(image.repo_tags, ["docker.io/library/hello:1"], "{form}");
        assert_eq!(image.config, spec().config, "{form}");
        check_rootfs(&store.rootfs(image, "c1", false).unwrap());
        ids.push(image.id.clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]));
}

fn check_rootfs(root: &Path) {
    assert_eq!(fs::metadata(root.join("bin/app")).unwrap().mode() & 0o7777, 0o4755);
    assert!(!root.join("old").exists() && !root.join("dir/old").exists());
    let new = fs::metadata(root.join("dir/new")).unwrap();
    assert_eq!((new.uid(), new.gid(), new.nlink()), (9, 8, 2));
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("dir/new"));
    assert_eq!(fs::read_to_string(root.join("same")).unwrap(), "new");
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
    let user = users::resolve(root, "web").unwrap();
    assert_eq!((user.uid, user.gid, user.home.as_str()), (9, 8, "/www"));
}

#[test]
fn images_are_found_by_every_name_they_have() {
    let store = Store::new();
    let image = store.add(spec());
    let digest = image.repo_digests[0].clone();
    assert!(digest.starts_with("docker.io/library/hello@sha256:"));
    let bare_id = image.id.strip_prefix("sha256:").unwrap();
    for name in ["hello:1", "docker.io/hello:1", "docker.io/library/hello:1", &digest, &image.id, bare_id] {
        assert_eq!(store.resolve(name).unwrap().as_ref(), Some(&image), "{name}");
    }
    for name in ["hello", "hello:2", "other.io/hello:1", "sha256:abc", "", "BAD"] {
        assert_eq!(store.resolve(name).unwrap(), None, "{name}");
    }
    let named = store.import_archive(&oci(&[spec()])[..], Some("example.com/x")).unwrap();
    assert_eq!(named[0].repo_tags, ["docker.io/library/hello:1", "example.com/x:latest"]);
    assert_eq!(named[0].repo_digests.len(), 2);
    let newer = store.add(BuildSpec::new("hello:1").file("f", 0o644, "newer"));
    assert_eq!(store.resolve("hello:1").unwrap().unwrap().id, newer.id);
    assert_eq!(store.resolve(&image.id).unwrap().unwrap().repo_tags, ["example.com/x:latest"]);
}

#[test]
fn names_in_archives() {
    let store = Store::new();
    let two = [BuildSpec::new("a:1").file("f", 0o644, "a"), BuildSpec::new("b").file("f", 0o644, "b")];
    assert_eq!(store.import_archive(&oci(&two)[..], None).unwrap().len(), 2);
    assert!(matches!(store.import_archive(&oci(&two)[..], Some("c")), Err(ImageError::Ambiguous(2))));
    assert!(matches!(store.import_archive(&oci(&two[..1])[..], Some("Not Valid")), Err(ImageError::Name(_))));
    let untagged = store.add(BuildSpec::new("").file("f", 0o644, "untagged"));
    assert_eq!((untagged.repo_tags.len(), untagged.repo_digests.len()), (0, 0));
    // A lone word in the OCI annotation is a tag of an unknown repository, a full one is a name.
    for (annotation, tags) in [("1.0", vec![]), ("x.io/y:1.0", vec!["x.io/y:1.0"])] {
        let dir = unpack(&oci(&[BuildSpec::new("z:1").file("f", 0o644, annotation)]));
        let index = fs::read_to_string(dir.path().join("index.json")).unwrap();
        let index = index.replace("\"io.containerd.image.name\":\"docker.io/library/z:1\",", "");
        let index = index.replace("ref.name\":\"1\"", &format!("ref.name\":\"{annotation}\""));
        fs::write(dir.path().join("index.json"), index).unwrap();
        assert_eq!(store.import(dir.path(), None).unwrap()[0].repo_tags, tags);
    }
}

#[test]
fn the_hosts_platform_is_taken_from_many() {
    let store = Store::new();
    let foreign = BuildSpec::new("multi").file("f", 0o644, "foreign").architecture("s390x");
    let native = BuildSpec::new("multi").file("f", 0o644, "native");
    let dir = unpack(&oci(&[foreign.clone(), native.clone()]));
    // As buildx does it: the archive's index leads to the image's index.
    let inner = fs::read(dir.path().join("index.json")).unwrap();
    let digest = Digest::of(&inner);
    fs::write(dir.path().join(format!("blobs/sha256/{}", digest.hex())), &inner).unwrap();
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{digest}","size":{},
            "annotations":{{"org.opencontainers.image.ref.name":"multi:2"}}}}]}}"#,
        inner.len()
    );
    fs::write(dir.path().join("index.json"), index).unwrap();
    let images = store.import(dir.path(), None).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].repo_digests, [format!("docker.io/library/multi@{digest}")]);
    let root = store.rootfs(&images[0], "c", true).unwrap();
    assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "native");
    let flat = store.import_archive(&docker(&[foreign.clone(), native])[..], None).unwrap();
    assert_eq!(flat[0].id, images[0].id);
    let error = store.import_archive(&oci(&[foreign])[..], None).unwrap_err().to_string();
    assert!(error.ends_with("only for linux/s390x"), "{error}");
}

#[test]
fn bad_archives_are_refused_and_leave_nothing() {
    let good = oci(&[spec()]);
    let edit = |name: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let dir = unpack(&good);
        let path = dir.path().join(name);
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
        dir
    };
    let blobs = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir.join("blobs/sha256")).unwrap();
        entries.map(|entry| format!("blobs/sha256/{}", entry.unwrap().file_name().to_str().unwrap())).collect()
    };
    let store = Store::new();
    for blob in blobs(unpack(&good).path()) {
        let damaged = edit(&blob, &|mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        });
        assert!(matches!(store.import(damaged.path(), None), Err(ImageError::Digest { .. })));
        store.assert_empty("damaged blob");
        let missing = unpack(&good);
        fs::remove_file(missing.path().join(&blob)).unwrap();
        assert!(matches!(store.import(missing.path(), None), Err(ImageError::Missing(_))));
        store.assert_empty("missing blob");
        let linked = unpack(&good);
        fs::remove_file(linked.path().join(&blob)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", linked.path().join(&blob)).unwrap();
        assert!(store.import(linked.path(), None).is_err());
    }
    // The second layer of a docker archive isn't what the configuration says, the first is.
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in tar::Archive::new(&docker(&[spec()])[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        files.push((entry.path().unwrap().display().to_string(), bytes));
    }
    files[1].1 = files[0].1.clone();
    let swapped: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    let error = store.import_archive(&archive(&swapped)[..], None).unwrap_err();
    assert!(matches!(error, ImageError::Layer { number: 2, count: 2, .. }), "{error:?}");
    store.assert_empty("wrong layer");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("noise", vec![0x5a; 5000]),
        ("truncated", good[..good.len() / 2].to_vec()),
        ("truncated gzip", { let packed = gzip(&good); packed[..packed.len() - 20].to_vec() }),
        ("no image", archive(&[("readme", b"hi")])),
        ("bad index", archive(&[("index.json", b"{")])),
        ("deep index", archive(&[("index.json", "[".repeat(100_000).as_bytes())])),
        ("huge index", archive(&[("index.json", &vec![b' '; 9 << 20])])),
        ("bad digest", archive(&[("index.json", br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../../etc/passwd","size":1}]}"#)])),
        ("docker file outside", archive(&[("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#)])),
        ("bad tag", archive(&[("manifest.json", br#"[{"Config":"manifest.json","RepoTags":["A B"],"Layers":[]}]"#)])),
        ("no images", archive(&[("manifest.json", b"[]")])),
    ];
    for (what, bytes) in cases {
        assert!(store.import_archive(&bytes[..], None).is_err(), "{what} was accepted");
        store.assert_empty(what);
    }
}

#[test]
fn members_that_lead_outside_do_not() {
    let store = Store::new();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("f").display().to_string();
    let files: Vec<(&str, &[u8])> = vec![(&target, b"x"), ("../../../../../tmp/canopus-escape", b"x")];
    assert!(matches!(store.import_archive(&archive(&files)[..], None), Err(ImageError::UnknownFormat)));
    assert!(!Path::new(&target).exists() && !Path::new("/tmp/canopus-escape").exists());
}

#[test]
fn bombs_are_bounded() {
    let temp = tempfile::tempdir().unwrap();
    let open = |bytes, members| ImageStore::open(temp.path()).unwrap().with_limits(Limits { bytes, members });
    let bomb = BuildSpec::new("bomb").file("zeros", 0o644, vec![0; 8 << 20]);
    let packed = oci(std::slice::from_ref(&bomb));
    assert!(packed.len() < 100_000);
    // The archive itself is small, its layer is not; then the archive is the bomb; then there are too many members.
    assert!(matches!(open(1 << 20, 100).import_archive(&packed[..], None), Err(ImageError::Layer { .. })));
    let outer = gzip(&oci(&[bomb.uncompressed()]));
    assert!(matches!(open(1 << 20, 100).import_archive(&outer[..], None), Err(ImageError::ArchiveTooLarge(_))));
    let many = (0..200).fold(BuildSpec::new("many"), |spec, number| spec.file(&format!("f{number}"), 0o644, ""));
    assert!(matches!(open(1 << 30, 100).import_archive(&oci(&[many])[..], None), Err(ImageError::Layer { .. })));
    assert_eq!(open(1, 1).usage().unwrap(), Usage::default());
}

#[test]
fn other_processes_see_changes_at_once() {
    let store = Store::new();
    let other = ImageStore::open(store.temp.path()).unwrap();
    assert_eq!(other.list().unwrap(), []);
    let image = store.add(spec());
    assert_eq!(other.resolve("hello:1").unwrap().as_ref(), Some(&image));
    other.remove("hello:1").unwrap();
    assert_eq!(store.list().unwrap(), []);
    let archives: Vec<_> =
        (0..6).map(|number| BuildSpec::new(&format!("x:{number}")).file("f", 0o644, number.to_string())).collect();
    std::thread::scope(|scope| {
        for spec in archives {
            let root = store.temp.path();
            scope.spawn(move || ImageStore::open(root).unwrap().import_archive(&oci(&[spec])[..], None).unwrap());
        }
    });
    assert_eq!((store.list().unwrap().len(), store.entries("layers"), store.entries("tmp")), (6, 6, 0));
}

#[test]
fn removed_images_live_on_in_their_containers() {
    let store = Store::new();
    let base = |name: &str| BuildSpec::new(name).file("shared", 0o644, vec![1; 50_000]).layer();
    let one = store.add(base("one").file("f", 0o644, "1"));
    store.add(base("two").file("f", 0o644, "2"));
    assert_eq!(store.entries("layers"), 3);
    assert!(one.size > 50_000 && store.usage().unwrap().bytes < 2 * one.size);
    let root = store.rootfs(&one, "c", false).unwrap();
    fs::write(root.join("f"), vec![2; 10_000]).unwrap();
    assert!(store.container_usage("c").unwrap().bytes >= 10_000);
    assert_eq!(store.remove("one").unwrap().map(|image| image.id), Some(one.id.clone()));
    assert_eq!(store.remove(&one.id).unwrap(), None);
    assert!(fs::read_to_string(root.join("f")).is_ok());
    assert_eq!(store.entries("layers"), 3);
    store.release("c").unwrap();
    assert!(store.gc().unwrap().is_some());
    assert_eq!(store.entries("layers"), 2);
    assert!(store.rootfs(&one, "d", false).is_err());
    assert_eq!(store.containers().unwrap(), [""; 0]);
}

#[test]
fn busybox_is_linked_by_all_its_names() {
    let store = Store::new();
    let binary = store.temp.path().join("busybox");
    fs::write(&binary, "#!/bin/sh\nprintf 'busybox\\nls\\nsh\\n[\\n../x\\n'\n").unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let image = store.add(busybox("busybox", &binary).unwrap());
    let root = store.rootfs(&image, "c", true).unwrap();
    for name in ["ls", "sh", "["] {
        assert_eq!(fs::read_link(root.join("bin").join(name)).unwrap(), Path::new("busybox"));
    }
    assert_eq!(fs::metadata(root.join("bin/busybox")).unwrap().mode() & 0o777, 0o755);
    assert!(!root.join("x").exists() && root.join("www").is_dir());
    assert_eq!(users::resolve(&root, "nobody").unwrap().uid, 65534);
}

#[test]
fn empty_configurations_are_as_go_writes_them() {
    let nulls = r#"{"User":"","Env":null,"Entrypoint":null,"Cmd":null,"Volumes":null,"ExposedPorts":null,"Labels":null,"OnBuild":null}"#;
    assert_eq!(serde_json::from_str::<ImageConfig>(nulls).unwrap(), ImageConfig::default());
}

#[tokio::test]
async fn async_code_uses_the_same_store() {
    let temp = tempfile::tempdir().unwrap();
    let images = Images::open(temp.path().into()).await.unwrap();
    let imported = images.import_archive(std::io::Cursor::new(oci(&[spec()])), Some("x".into())).await.unwrap();
    let root = images.rootfs(imported[0].clone(), "c", false).await.unwrap();
    assert_eq!(images.user(&root, "web").await.unwrap().uid, 9);
    assert_eq!(images.resolve("x").await.unwrap(), Some(imported[0].clone()));
    images.release("c").await.unwrap();
    images.remove("x").await.unwrap();
    assert_eq!(images.usage().await.unwrap(), Usage::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    /// However an archive is damaged, import gives an image or an error; after an error nothing is left.
    #[test]
    fn damaged_archives(damage in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..6), cut in any::<Option<u32>>(), old: bool) {
        thread_local!(static SHARED: Arc<Store> = Arc::new(Store::new()));
        let store = SHARED.with(Arc::clone);
        let small = BuildSpec::new("s").file("a/b", 0o644, "x").symlink("c", "a");
        let mut bytes = if old { docker(&[small]) } else { oci(&[small]) };
        for (at, value) in damage {
            let at = at as usize % bytes.len();
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut as usize % bytes.len());
        }
        match store.import_archive(&bytes[..], None) {
            Ok(images) => for image in images {
                store.remove(&image.id).unwrap();
            },
            Err(_) => store.assert_empty("a damaged archive"),
        }
    }
}
