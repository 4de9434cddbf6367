//! Finds users and groups by name in a container's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use crate::error::{Context, ImageError, Result};

const MAX_FILE: u64 = 16 << 20;

/// Whom a container's process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Groups that `/etc/group` lists the user in, ascending, without `gid`.
    pub additional_gids: Vec<u32>,
    /// `/` if `/etc/passwd` doesn't know the user.
    pub home: String,
}

struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Resolves `user`, `uid`, either with `:group` or `:gid` (empty: root) as Docker does: a name must be in the files; a
/// number need not be, but takes its group and home from there if it is. `rootfs` is untrusted: symlinks in it stay
/// in it.
pub fn resolve(rootfs: &Path, user: &str) -> Result<User> {
    let passwd = entries(rootfs, "etc/passwd", passwd)?;
    let groups = entries(rootfs, "etc/group", group)?;
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, group),
        None => (user, ""),
    };
    let uid = if user.is_empty() { Some(0) } else { number(user)? };
    let known = passwd.iter().find(|entry| entry.name == user);
    let known = known.or_else(|| passwd.iter().find(|entry| uid == Some(entry.uid)));
    let mut resolved = match (known, uid) {
        (Some(known), _) => User { uid: known.uid, gid: known.gid, home: known.home.clone(), ..User::default() },
        (None, Some(uid)) => User { uid, ..User::default() },
        (None, None) => return Err(ImageError::NoUser(user.into())),
    };
    if let Some(known) = known {
        let member = |group: &&Group| group.members.contains(&known.name);
        resolved.additional_gids = groups.iter().filter(member).map(|group| group.gid).collect();
    }
    if !wanted_group.is_empty() {
        let known = groups.iter().find(|group| group.name == wanted_group).map(|group| group.gid);
        let gid = known.map_or_else(|| number(wanted_group), |gid| Ok(Some(gid)))?;
        resolved.gid = gid.ok_or_else(|| ImageError::NoGroup(wanted_group.into()))?;
        // Docker: a group given explicitly is the only one.
        resolved.additional_gids.clear();
    }
    resolved.additional_gids.retain(|gid| *gid != resolved.gid);
    resolved.additional_gids.sort_unstable();
    resolved.additional_gids.dedup();
    if resolved.home.is_empty() {
        resolved.home = "/".into();
    }
    Ok(resolved)
}

/// A text that is a number; none if it isn't one at all.
fn number(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    // As runc: ids are non-negative 32-bit integers.
    let id = text.parse::<i32>().ok().and_then(|id| u32::try_from(id).ok());
    id.map(Some).ok_or(ImageError::Invalid("uids and gids must be in range 0-2147483647"))
}

/// Lines of a file in the container; none if there is no file. Lines that don't parse are skipped, as libc does.
fn entries<T>(rootfs: &Path, name: &str, parse: impl Fn(&[&str]) -> Option<T>) -> Result<Vec<T>> {
    let path = rootfs.join(name);
    let root = File::open(rootfs).context("open", rootfs)?;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file: File = match openat2(&root, name, OpenHow::new().flags(flags).mode(Mode::empty()).resolve(resolve)) {
        Ok(file) => file.into(),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
        Err(error) => return Err(io::Error::from(error)).context("open", &path),
    };
    if !file.metadata().context("read", &path)?.is_file() {
        return Err(ImageError::Invalid("the user or group file is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).context("read", &path)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ImageError::TooLarge { name: name.into(), size: bytes.len() as u64, limit: MAX_FILE });
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(|line| parse(&line.trim().split(':').collect::<Vec<_>>())).collect())
}

fn passwd(fields: &[&str]) -> Option<Passwd> {
    let &[name, _, uid, gid, _, home, ..] = fields else { return None };
    Some(Passwd { name: name.into(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
}

fn group(fields: &[&str]) -> Option<Group> {
    let &[name, _, gid, ref rest @ ..] = fields else { return None };
    let members = rest.first().copied().unwrap_or_default().split(',').filter(|name| !name.is_empty());
    Some(Group { name: name.into(), gid: gid.parse().ok()?, members: members.map(Into::into).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn rootfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# comment\nweb:x:1000:100::/home/web:\n33:x:44:44::/numeric:\nbad:x:y:1::/:\n";
        let group = "root:x:0:\nusers:x:100:web\nwww:x:33:web,other\nadm:x:4:web\n";
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        fs::write(root.path().join("etc/group"), group).unwrap();
        root
    }

    fn found(user: &str) -> Option<(u32, u32, Vec<u32>, String)> {
        let root = rootfs();
        resolve(root.path(), user).ok().map(|user| (user.uid, user.gid, user.additional_gids, user.home))
    }

    #[test]
    fn users_by_name_and_number() {
        for (user, uid, gid, more, home) in [
            ("", 0, 0, vec![], "/root"),
            ("root", 0, 0, vec![], "/root"),
            ("web", 1000, 100, vec![4, 33], "/home/web"),
            ("1000", 1000, 100, vec![4, 33], "/home/web"),
            ("web:www", 1000, 33, vec![], "/home/web"),
            ("web:7", 1000, 7, vec![], "/home/web"),
            ("5:6", 5, 6, vec![], "/"),
            ("5", 5, 0, vec![], "/"),
            ("33", 44, 44, vec![], "/numeric"),
            (":www", 0, 33, vec![], "/root"),
        ] {
            assert_eq!(found(user), Some((uid, gid, more, home.into())), "{user:?}");
        }
        for user in ["nobody", "bad", "web:nogroup", "4294967296", "2147483648", "-1", "+1", "web:-1"] {
            assert_eq!(found(user), None, "{user:?}");
        }
    }

    #[test]
    fn hostile_files_are_neither_followed_nor_waited_for() {
        let root = rootfs();
        let passwd = root.path().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/../../../etc/passwd", &passwd).unwrap();
        assert!(resolve(root.path(), "daemon").is_err());
        fs::remove_file(&passwd).unwrap();
        nix::unistd::mkfifo(&passwd, Mode::S_IRWXU).unwrap();
        assert!(matches!(resolve(root.path(), "0"), Err(ImageError::Invalid(_))));
        fs::remove_file(&passwd).unwrap();
        File::create(&passwd).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(matches!(resolve(root.path(), "0"), Err(ImageError::TooLarge { .. })));
        fs::remove_dir_all(root.path().join("etc")).unwrap();
        assert_eq!(resolve(root.path(), "12:13").unwrap().gid, 13);
    }
}
