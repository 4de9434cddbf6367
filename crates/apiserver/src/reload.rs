//! Files that may change while the server runs: certificates, keys, configurations.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

/// Without a notice files are looked at this often (upstream's `FileRefreshDuration`).
const REFRESH: Duration = Duration::from_secs(60);
/// Writers take more than one step.
const SETTLE: Duration = Duration::from_millis(100);

/// Calls `changed` after the content of one of the files has changed, until `shutdown`. Their directories are watched, since files are
/// replaced by renaming, in mounted ConfigMaps even their directory.
pub async fn follow(paths: Vec<PathBuf>, shutdown: CancellationToken, mut changed: impl FnMut() + Send) {
    if paths.is_empty() {
        return;
    }
    let notices = match watch(&paths) {
        Ok(notices) => Some(notices),
        Err(error) => {
            tracing::warn!(%error, "failed to watch files; they are read every minute");
            None
        }
    };
    let mut known = digest(&paths);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(REFRESH) => {}
            () = noticed(notices.as_ref()) => tokio::time::sleep(SETTLE).await,
        }
        let now = digest(&paths);
        if now != known {
            known = now;
            changed();
        }
    }
}

fn watch(paths: &[PathBuf]) -> std::io::Result<AsyncFd<File>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE;
    let directory =
        |p: &PathBuf| p.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    for directory in paths.iter().map(directory).collect::<BTreeSet<_>>() {
        inotify.add_watch(&directory, flags)?;
    }
    // SAFETY: the file owns its descriptor, and nobody exchanges it as long as it is registered.
    let registered = unsafe { AsyncFd::register(File::from(OwnedFd::from(inotify))) };
    registered.map_err(std::io::Error::from)
}

/// Something has happened in one of the directories. What it was does not matter: the files tell.
async fn noticed(notices: Option<&AsyncFd<File>>) {
    let Some(notices) = notices else { return std::future::pending().await };
    let Ok(mut ready) = notices.readable().await else { return std::future::pending().await };
    let mut ignored = [0; 4096];
    while matches!(ready.try_io(|file| file.get_ref().read(&mut ignored)), Ok(Ok(1..))) {}
}

/// A file that cannot be read counts as empty: it is about to be replaced.
fn digest(paths: &[PathBuf]) -> Vec<[u8; 32]> {
    paths.iter().map(|path| Sha256::digest(std::fs::read(path).unwrap_or_default()).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn replaced_and_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, "1").unwrap();
        let (seen, shutdown) = (Arc::new(Notify::new()), CancellationToken::new());
        let notify = seen.clone();
        let following = tokio::spawn(follow(vec![path.clone()], shutdown.clone(), move || notify.notify_one()));
        // The first digest is taken before the first poll returns.
        tokio::task::yield_now().await;
        std::fs::write(&path, "2").unwrap();
        seen.notified().await;
        let new = dir.path().join("new");
        std::fs::write(&new, "3").unwrap();
        std::fs::rename(&new, &path).unwrap();
        seen.notified().await;
        shutdown.cancel();
        following.await.unwrap();
    }
}
