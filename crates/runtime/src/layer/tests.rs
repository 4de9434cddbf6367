use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::*;

/// A tar stream written member by member, as wrongly as wished.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, kind: u8, name: &str, link: &str, size: u64, data: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(kind));
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(if kind == b'5' { 0o755 } else { 0o640 });
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000);
        header.set_size(size);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.raw(b'0', name, "", data.len() as u64, data.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.raw(b'5', name, "", 0, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(b'2', name, target, 0, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.raw(b'1', name, target, 0, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let length = (body + 1..).find(|length| body + length.to_string().len() == *length).unwrap();
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        let size = data.len() as u64;
        self.raw(b'x', "pax", "", size, &data)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

struct Layers {
    temp: tempfile::TempDir,
    /// Topmost first.
    dirs: Vec<PathBuf>,
}

impl Layers {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("outside"), "untouched").unwrap();
        Self { temp, dirs: Vec::new() }
    }

    fn add_stream(&mut self, stream: &[u8], limits: &Limits) -> Result<PathBuf, LayerError> {
        let dir = self.temp.path().join(format!("layer{}", self.dirs.len()));
        fs::create_dir(&dir).unwrap();
        let applied = apply(stream, &dir, &self.dirs, limits);
        assert_eq!(fs::read_to_string(self.temp.path().join("outside")).unwrap(), "untouched");
        self.dirs.insert(0, dir.clone());
        applied.map(|_| dir)
    }

    fn add(&mut self, tar: Tar) -> PathBuf {
        self.add_stream(&tar.end(), &Limits::default()).unwrap()
    }
}

fn is_whiteout(path: &Path) -> bool {
    let found = fs::symlink_metadata(path).unwrap();
    found.file_type().is_char_device() && found.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    xattr::get(path, tree::OPAQUE).unwrap().is_some_and(|value| value == b"y")
}

#[test]
fn all_kinds_of_members_with_their_attributes() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let capability = [1u8, 0, 0, 2, 0, 4, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::default()
        .dir("./")
        .dir("bin/")
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("mtime", b"99.5"),
        ])
        .file("bin/ping", "#!")
        .link("bin/ping2", "/bin/ping")
        .symlink("bin/sh", "/bin/ping")
        .raw(b'3', "null", "", 0, b"")
        .raw(b'6', "pipe", "", 0, b"")
        .raw(b'L', "././@LongLink", "", long.len() as u64, long.as_bytes())
        .file("short", "long")
        .pax(&[("path", b"/absolute"), ("uid", b"3000000000"), ("gid", b"5")])
        .file("ignored", "x")
        .file("with/implicit/parents", "y");
    let stream = tar.end();
    let mut layers = Layers::new();
    let dir = layers.add_stream(&stream, &Limits::default()).unwrap();
    let ping = fs::metadata(dir.join("bin/ping")).unwrap();
    assert_eq!((ping.mode() & 0o7777, ping.uid(), ping.gid(), ping.nlink()), (0o640, 7, 8, 2));
    assert_eq!((ping.mtime(), ping.mtime_nsec()), (99, 500_000_000));
    assert_eq!(xattr::get(dir.join("bin/ping"), "security.capability").unwrap().unwrap(), capability);
    assert_eq!(xattr::get(dir.join("bin/ping"), "user.note").unwrap().unwrap(), b"a\nb");
    assert_eq!(fs::metadata(dir.join("bin/ping2")).unwrap().ino(), ping.ino());
    assert_eq!(fs::metadata(dir.join("bin")).unwrap().mtime(), 1_000_000);
    assert_eq!(fs::read_link(dir.join("bin/sh")).unwrap(), Path::new("/bin/ping"));
    assert_eq!(fs::symlink_metadata(dir.join("bin/sh")).unwrap().uid(), 7);
    assert_eq!(fs::metadata(dir.join("null")).unwrap().rdev(), nix::sys::stat::makedev(1, 3));
    assert!(fs::metadata(dir.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read_to_string(dir.join(long)).unwrap(), "long");
    assert_eq!(fs::metadata(dir.join("absolute")).unwrap().uid(), 3_000_000_000);
    assert_eq!(fs::metadata(dir.join("with")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(&dir).unwrap().uid(), 7);
}

#[test]
fn the_diff_id_covers_the_whole_uncompressed_stream() {
    let stream = [Tar::default().file("a", "b").end(), vec![0; 4096]].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gzip.write_all(&stream).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let applied = apply(&gzip.finish().unwrap()[..], temp.path(), &[], &Limits::default()).unwrap();
    assert_eq!(applied, Applied { diff_id: Digest::of(&stream), bytes: stream.len() as u64 });
}

#[test]
fn later_members_replace_earlier_ones() {
    let mut layers = Layers::new();
    let dir = layers.add(
        Tar::default()
            .file("f", "1")
            .file("f", "two")
            .dir("d")
            .file("d/x", "")
            .file("d", "now a file")
            .file("e", "")
            .dir("e")
            .file("e/y", "")
            .dir("e")
            .symlink("s", "/etc/passwd")
            .file("s", "own"),
    );
    assert_eq!(fs::read_to_string(dir.join("f")).unwrap(), "two");
    assert_eq!(fs::read_to_string(dir.join("d")).unwrap(), "now a file");
    assert!(dir.join("e/y").exists());
    assert_eq!(fs::read_to_string(dir.join("s")).unwrap(), "own");
}

#[test]
fn whiteouts_take_overlay_form_and_spare_their_own_layer() {
    let mut layers = Layers::new();
    let base = layers.add(Tar::default().file("a", "").file("d/x", "").file("o/x", "").file(".wh.nothing", ""));
    assert!(!base.join("nothing").exists());
    let top = layers.add(
        Tar::default()
            .file(".wh.a", "")
            .file("o/mine", "")
            .file("o/.wh..wh..opq", "")
            .file("o/.wh.mine", "")
            .file(".wh.d", "")
            .file("d/new", "")
            .dir("q")
            .file(".wh.q", "")
            .dir(".wh..wh.plnk")
            .file(".wh..wh.plnk/1.2", ""),
    );
    assert!(is_whiteout(&top.join("a")));
    assert!(is_opaque(&top.join("o")) && top.join("o/mine").is_file());
    assert!(is_opaque(&top.join("d")) && top.join("d/new").exists());
    assert!(is_opaque(&top.join("q")));
    assert!(
        fs::read_dir(&top).unwrap().all(|entry| { !entry.unwrap().file_name().to_string_lossy().starts_with(".wh") })
    );
}

#[test]
fn implied_directories_are_those_of_the_layers_below() {
    let mut layers = Layers::new();
    let base =
        layers.add(Tar::default().dir("tmp").dir("usr/lib").symlink("lib", "usr/lib").dir("gone").dir("hidden/in"));
    fs::set_permissions(base.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    layers.add(Tar::default().file(".wh.gone", "").file("hidden/.wh..wh..opq", ""));
    let top =
        layers.add(Tar::default().file("tmp/f", "").file("lib/libc", "").file("gone/f", "").file("hidden/in/f", ""));
    let tmp = fs::metadata(top.join("tmp")).unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.uid()), (0o1777, 7));
    assert!(top.join("usr/lib/libc").is_file() && !top.join("lib").exists());
    assert_eq!(fs::metadata(top.join("gone")).unwrap().uid(), 0);
    assert_eq!(fs::metadata(top.join("hidden/in")).unwrap().uid(), 0);
}

#[test]
fn symlinks_are_followed_inside_the_layer_only() {
    let mut layers = Layers::new();
    let dir = layers.add(
        Tar::default()
            .symlink("abs", "/")
            .file("abs/one", "")
            .symlink("up", "../../../..")
            .file("up/outside", "planted")
            .dir("deep/er")
            .symlink("deep/er/out", "/../../tmp/../x")
            .file("deep/er/out/two", "")
            .link("deep/three", "up/outside"),
    );
    assert!(dir.join("one").is_file());
    assert_eq!(fs::read_to_string(dir.join("outside")).unwrap(), "planted");
    assert!(dir.join("x/two").is_file());
    assert_eq!(fs::read_to_string(dir.join("deep/three")).unwrap(), "planted");
}

#[test]
fn hostile_members_are_refused() {
    let deep = |depth: usize| "d/".repeat(depth) + "f";
    // Each symlink points 40 levels below the one before.
    let mut ladder = Tar::default().symlink("s0", "/");
    for level in 0..8 {
        let bottom = format!("s{level}/{}", ["d"; 40].join("/"));
        ladder = ladder.file(&format!("{bottom}/f"), "").symlink(&format!("s{}", level + 1), &bottom);
    }
    let cases: Vec<(&str, Tar)> = vec![
        ("..", Tar::default().file("../outside", "x")),
        (".. inside", Tar::default().file("a/../../outside", "x")),
        ("hard link out", Tar::default().link("a", "../outside")),
        ("hard link to a directory", Tar::default().dir("d").link("a", "d")),
        ("hard link to nothing", Tar::default().link("a", "b")),
        ("hard link to itself", Tar::default().file("a", "").link("a", "a")),
        ("hard link into what it replaces", Tar::default().file("d/a", "").link("d", "d/a")),
        ("symlink loop", Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "")),
        ("file as parent", Tar::default().file("a", "").file("a/x", "")),
        ("too deep", Tar::default().pax(&[("path", deep(300).as_bytes())]).file("x", "")),
        ("too deep by symlinks", ladder),
        ("long name", Tar::default().pax(&[("path", "n".repeat(256).as_bytes())]).file("x", "")),
        ("long path", Tar::default().pax(&[("path", "nnn/".repeat(2000).as_bytes())]).file("x", "")),
        ("file as root", Tar::default().file("./", "")),
        ("whiteout device", Tar::default().pax(&[("path", b"w")]).raw(b'3', "w", "", 0, b"")),
        ("overlay's attributes", Tar::default().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).dir("d")),
        ("unknown kind", Tar::default().raw(b'Z', "x", "", 0, b"")),
        ("huge extension", Tar::default().raw(b'x', "x", "", 1 << 30, b"")),
        ("huge file", Tar::default().raw(b'0', "x", "", 0o77777777777, b"")),
        ("truncated", Tar::default().raw(b'0', "x", "", 2000, b"only this")),
        ("uid out of range", Tar::default().pax(&[("uid", b"4294967295")]).file("x", "")),
        (
            "sparse map longer than its file",
            Tar::default().pax(&[("GNU.sparse.size", b"3"), ("GNU.sparse.map", b"0,4")]).file("x", "abcd"),
        ),
        (
            "huge sparse file",
            Tar::default().pax(&[("GNU.sparse.size", b"99999999999999"), ("GNU.sparse.map", b"")]).file("x", ""),
        ),
    ];
    for (what, tar) in cases {
        let mut stream = tar.end();
        if what == "whiteout device" {
            let header = stream.len() - 1024 - 512;
            stream[header + 329..header + 345].fill(0);
            let sum: u32 =
                (0..512).map(|at| if (148..156).contains(&at) { 32 } else { stream[header + at].into() }).sum();
            stream[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        if what == "truncated" {
            stream.truncate(1024);
        }
        let result = Layers::new().add_stream(&stream, &Limits::default());
        assert!(result.is_err(), "{what} was accepted");
    }
}

#[test]
fn bombs_are_bounded() {
    let limits = Limits { bytes: 1 << 20, members: 100 };
    let zeros = Tar::default().raw(b'0', "zeros", "", 4 << 20, &vec![0; 4 << 20]).end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gzip.write_all(&zeros).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 10_000);
    assert!(Layers::new().add_stream(&bomb, &limits).is_err());
    let tail = [Tar::default().file("a", "").end(), vec![0; 2 << 20]].concat();
    assert!(matches!(Layers::new().add_stream(&tail, &limits), Err(LayerError::TooLarge(_))));
    let many = (0..101).fold(Tar::default(), |tar, number| tar.file(&format!("f{number}"), "")).end();
    assert!(matches!(
        Layers::new().add_stream(&many, &limits),
        Err(LayerError::Archive(ArchiveError::TooManyMembers(100)))
    ));
}

#[test]
fn sparse_files_of_every_format() {
    let map = "2\n4\n3\n12\n2\n";
    let data = [map.as_bytes(), &vec![0; 512 - map.len()], b"abcde"].concat();
    let version1 = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s10"),
        ("GNU.sparse.realsize", b"20"),
    ];
    let tar = Tar::default()
        .pax(&[
            ("GNU.sparse.size", b"20"),
            ("GNU.sparse.offset", b"4"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", b"12"),
            ("GNU.sparse.numbytes", b"2"),
        ])
        .file("s00", "abcde")
        .pax(&[("GNU.sparse.name", b"s01"), ("GNU.sparse.size", b"20"), ("GNU.sparse.map", b"4,3,12,2")])
        .file("other", "abcde")
        .pax(&version1)
        .raw(b'0', "other", "", data.len() as u64, &data);
    let mut old = Header::new_gnu();
    old.set_entry_type(EntryType::GNUSparse);
    old.as_old_mut().name[..3].copy_from_slice(b"old");
    old.set_mode(0o644);
    old.set_uid(0);
    old.set_gid(0);
    old.set_size(5);
    let gnu = old.as_gnu_mut().unwrap();
    gnu.set_real_size(20);
    for (at, (offset, length)) in
        [("00000000004", "00000000003"), ("00000000014", "00000000002")].into_iter().enumerate()
    {
        gnu.sparse[at].offset[..11].copy_from_slice(offset.as_bytes());
        gnu.sparse[at].numbytes[..11].copy_from_slice(length.as_bytes());
    }
    old.set_cksum();
    let mut stream = tar.0;
    stream.extend(old.as_bytes());
    stream.extend(b"abcde");
    stream.resize(stream.len().next_multiple_of(512), 0);
    let mut layers = Layers::new();
    let dir = layers.add(Tar(stream).file("after", "z"));
    for name in ["s00", "s01", "s10", "old"] {
        assert_eq!(fs::read(dir.join(name)).unwrap(), b"\0\0\0\0abc\0\0\0\0\0de\0\0\0\0\0\0", "{name}");
    }
    assert!(dir.join("after").is_file());
}

mod random {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop_oneof!["[ab]", Just("..".into()), Just(".wh.a".into()), Just(".wh..wh..opq".into()), Just("".into())],
            1..4,
        )
        .prop_map(|parts: Vec<String>| parts.join("/"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

        /// Whatever the members are, nothing outside the directory changes and nothing panics.
        #[test]
        fn members_stay_inside(members in proptest::collection::vec((prop_oneof![Just(b'0'), Just(b'1'), Just(b'2'), Just(b'5')], name(), name()), 1..12)) {
            let mut layers = Layers::new();
            layers.add(Tar::default().dir("a/b").symlink("b", "../../outside"));
            let tar = members.iter().fold(Tar::default(), |tar, (kind, name, link)| tar.raw(*kind, name, link, 0, b""));
            let _ = layers.add_stream(&tar.end(), &Limits::default());
            prop_assert_eq!(fs::read_dir(layers.temp.path()).unwrap().count(), 3);
        }

        /// Damaged streams are errors at worst.
        #[test]
        fn damaged_streams(at in 0usize..3000, value: u8, cut in 0usize..4000) {
            let mut stream = Tar::default().pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")]).file("a/b", "data").symlink("c", "a").end();
            let length = stream.len();
            stream[at % length] = value;
            stream.truncate(cut.max(1));
            let _ = Layers::new().add_stream(&stream, &Limits { bytes: 1 << 20, members: 100 });
        }
    }
}
