//! The audit log: one line of JSON an event, in files of a bounded size (upstream `plugin/audit/log` over lumberjack).

use canopus_api::{Time, Value, json};
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `--audit-log-*`. Zero is no limit.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `-` is standard output.
    pub path: PathBuf,
    /// How many days old files are kept.
    pub max_age: u64,
    /// How many old files are kept.
    pub max_backup: usize,
    /// From how many megabytes on a new file is begun.
    pub max_size: u64,
}

pub struct Log {
    options: Options,
    open: Mutex<Open>,
}

struct Open {
    out: Box<dyn Write + Send>,
    size: u64,
}

impl Log {
    pub fn open(options: Options) -> io::Result<Log> {
        let open = open(&options.path)?;
        Ok(Log { options, open: Mutex::new(open) })
    }

    pub fn write(&self, event: &Value, now: Time) -> io::Result<()> {
        let mut line = json::to_vec(event);
        line.push(b'\n');
        let length = line.len() as u64;
        let mut open = self.open.lock();
        let limit = self.options.max_size << 20;
        if limit > 0 && open.size > 0 && open.size + length > limit && self.options.path != Path::new("-") {
            *open = self.rotate(now)?;
        }
        open.out.write_all(&line)?;
        open.size += length;
        Ok(())
    }

    /// Puts the full file aside and begins a new one.
    fn rotate(&self, now: Time) -> io::Result<Open> {
        let path = &self.options.path;
        let (stem, extension) = parts(path);
        let stamp = now.rfc3339_micro();
        // 2006-01-02T15-04-05.000
        let stamp = stamp.get(..23).unwrap_or(&stamp).replace(':', "-");
        let mut aside = path.with_file_name(format!("{stem}-{stamp}{extension}"));
        for n in 1.. {
            if !aside.exists() {
                break;
            }
            aside = path.with_file_name(format!("{stem}-{stamp}.{n}{extension}"));
        }
        std::fs::rename(path, aside)?;
        self.prune(now);
        open(path)
    }

    /// Removes old files that are too many or too old. What cannot be removed is left for the next time.
    fn prune(&self, now: Time) {
        let (stem, extension) = parts(&self.options.path);
        let directory = self.options.path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        let mut old: Vec<(String, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let stamp = name.strip_prefix(&format!("{stem}-"))?.strip_suffix(&extension)?.to_string();
                // Only what this has put aside.
                Some((stamp, entry.path())).filter(|(stamp, _)| date(stamp).is_some())
            })
            .collect();
        old.sort_by(|a, b| b.cmp(a));
        let oldest = now.unix() - i64::try_from(self.options.max_age).unwrap_or(i64::MAX).saturating_mul(86_400);
        for (index, (stamp, path)) in old.iter().enumerate() {
            let many = self.options.max_backup > 0 && index >= self.options.max_backup;
            let aged = self.options.max_age > 0 && date(stamp).is_some_and(|at| at < oldest);
            if many || aged {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// The time in a file's name, in Unix seconds.
fn date(stamp: &str) -> Option<i64> {
    let (day, time) = stamp.get(..19)?.split_once('T')?;
    Time::parse(&format!("{day}T{}Z", time.replace('-', ":"))).map(Time::unix)
}

fn parts(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    (stem, extension)
}

fn open(path: &Path) -> io::Result<Open> {
    if path == Path::new("-") {
        return Ok(Open { out: Box::new(io::stdout()), size: 0 });
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let file: File = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    Ok(Open { size: file.metadata()?.len(), out: Box::new(file) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use canopus_api::value;

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let log = Log::open(Options { path: path.clone(), max_size: 1, max_backup: 2, max_age: 0 }).unwrap();
        let event = value!({"text": "x".repeat(400 << 10)});
        for second in 0..12 {
            log.write(&event, Time::from_unix(1_800_000_000 + second)).unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(dir.path().join("logs"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["audit-2027-01-15T08-00-08.000.log", "audit-2027-01-15T08-00-10.000.log", "audit.log"]);
        assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
        // An older one goes by its age, a stranger stays.
        std::fs::write(dir.path().join("logs/audit-notes.log"), "").unwrap();
        let log = Log::open(Options { path: path.clone(), max_size: 1, max_backup: 0, max_age: 1 }).unwrap();
        for _ in 0..2 {
            log.write(&event, Time::from_unix(1_800_000_000 + 200_000)).unwrap();
        }
        let left: Vec<_> = std::fs::read_dir(dir.path().join("logs")).unwrap().collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }
}
