//! Container output as CRI log files: `<RFC 3339 time> <stream> <P|F> <text>`, a line each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::spec::LogConfig;

/// Longer lines are cut into partial entries.
const MAX_LINE: usize = 16 * 1024;
/// Capacity above which a buffer isn't kept between uses.
const KEEP: usize = 16 * 1024;
const DEFAULT_FILES: u32 = 5;

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

/// Date and time of nanoseconds since 1970, in UTC: year, month, day, hour, minute, second.
fn civil(nanos: u64) -> (u64, u64, u64, u64, u64, u64) {
    let seconds = nanos / 1_000_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, so that the leap day is a year's last; eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

/// `2006-01-02T15:04:05.999999999Z`.
fn timestamp(nanos: u64) -> String {
    let (y, mo, d, h, mi, s) = civil(nanos);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{:09}Z", nanos % 1_000_000_000)
}

/// Cuts one stream's bytes into entries. Bytes after the last newline wait here.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Appends to `out` the entries that `data` completes.
    pub(super) fn push(&mut self, data: &[u8], stream: &str, nanos: u64, out: &mut Vec<u8>) {
        let time = timestamp(nanos);
        let mut rest = data;
        while !rest.is_empty() {
            let newline = rest.iter().position(|b| *b == b'\n');
            let end = newline.unwrap_or(rest.len());
            let room = MAX_LINE - self.pending.len();
            if end > room {
                self.pending.extend_from_slice(&rest[..room]);
                self.entry(&time, stream, 'P', out);
                rest = &rest[room..];
                continue;
            }
            self.pending.extend_from_slice(&rest[..end]);
            if newline.is_none() {
                return;
            }
            self.entry(&time, stream, 'F', out);
            rest = &rest[end + 1..];
        }
    }

    /// Ends the stream: what has no newline becomes a partial entry, so that readers add none either.
    pub(super) fn finish(&mut self, stream: &str, nanos: u64, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.entry(&timestamp(nanos), stream, 'P', out);
        }
        self.pending = Vec::new();
    }

    fn entry(&mut self, time: &str, stream: &str, tag: char, out: &mut Vec<u8>) {
        // Writing to a vector doesn't fail.
        let _ = write!(out, "{time} {stream} {tag} ");
        out.extend_from_slice(&self.pending);
        out.push(b'\n');
        self.pending.clear();
        self.pending.shrink_to(1024);
    }
}

/// One container's log file.
#[derive(Debug)]
pub(super) struct LogFile {
    config: LogConfig,
    file: File,
    size: u64,
    /// Entries on their way to the file.
    pub(super) buffer: Vec<u8>,
}

impl LogFile {
    pub(super) fn open(config: LogConfig) -> io::Result<Self> {
        let (file, size) = open(&config.path)?;
        Ok(Self { config, file, size, buffer: Vec::new() })
    }

    /// Writes the buffer out, whole entries or nothing: what a full disk cuts off is taken back.
    pub(super) fn flush(&mut self) {
        if !self.buffer.is_empty() {
            match self.file.write_all(&self.buffer) {
                Ok(()) => self.size += self.buffer.len() as u64,
                Err(_) => drop(self.file.set_len(self.size)),
            }
            self.buffer.clear();
            self.buffer.shrink_to(KEEP);
        }
        if self.config.max_size.is_some_and(|max| self.size >= max) {
            // A failure leaves the file growing, which loses nothing; it is tried again.
            let _ = self.rotate();
        }
    }

    /// Opens the path anew, after somebody has moved the file away.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.size) = open(&self.config.path)?;
        Ok(())
    }

    /// Moves the file to `<path>.<time>`, begins a new one and drops the oldest of too many.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        let path = self.config.path.clone();
        let (y, mo, d, h, mi, s) = civil(now());
        let base = format!("{}.{y:04}{mo:02}{d:02}-{h:02}{mi:02}{s:02}", path.display());
        let target = next_name(&path, &base)?;
        fs::rename(&path, target)?;
        self.reopen()?;
        remove_oldest(&path, self.config.max_files.unwrap_or(DEFAULT_FILES))
    }
}

/// `base`, or `base.0001` and so on behind those of the same second: names must sort by age.
fn next_name(path: &Path, base: &str) -> io::Result<String> {
    let same = rotated(path)?.iter().filter_map(|p| p.to_str()?.strip_prefix(base).map(str::to_owned)).max();
    Ok(match same {
        None => base.to_owned(),
        Some(suffix) => format!("{base}.{:04}", suffix.trim_start_matches('.').parse().unwrap_or(0) + 1),
    })
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// The files that `path` was before, the oldest first.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let ours = |e: &fs::DirEntry| e.file_name().to_str().is_some_and(|n| n.starts_with(&prefix));
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?.flatten().filter(ours).map(|e| e.path()).collect();
    files.sort();
    Ok(files)
}

/// The current file counts as one of `keep`.
fn remove_oldest(path: &Path, keep: u32) -> io::Result<()> {
    let files = rotated(path)?;
    let surplus = files.len().saturating_sub(keep.saturating_sub(1) as usize);
    files.iter().take(surplus).try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_136_214_245_000_000_009;

    fn entries(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        chunks.iter().for_each(|c| lines.push(c, "stdout", T, &mut out));
        lines.finish("stdout", T, &mut out);
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn times() {
        assert_eq!(timestamp(T), "2006-01-02T15:04:05.000000009Z");
        assert_eq!(timestamp(1_709_164_800_000_000_000), "2024-02-29T00:00:00.000000000Z");
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn lines_survive_any_chunking() {
        let head = "2006-01-02T15:04:05.000000009Z stdout";
        let expected = |tag| [format!("{head} F one"), format!("{head} F "), format!("{head} {tag} two")];
        assert_eq!(entries(&[b"one\n\ntwo\n"]), expected('F'));
        assert_eq!(entries(&[b"o", b"ne", b"\n\n", b"tw", b"o\n"]), expected('F'));
        // Nobody ended the last line.
        assert_eq!(entries(&[b"one\n\ntwo"]), expected('P'));
    }

    #[test]
    fn long_lines_become_partial_entries() {
        let text = |e: &String| e.splitn(4, ' ').skip(2).map(str::len).collect::<Vec<_>>();
        let tags = |n: usize| -> Vec<(String, usize)> {
            let line = [vec![b'x'; n], vec![b'\n']].concat();
            let of = |e: &String| (e.split(' ').nth(2).unwrap().to_owned(), text(e)[1]);
            entries(&[&line]).iter().map(of).collect()
        };
        assert_eq!(tags(MAX_LINE), [("F".to_owned(), MAX_LINE)]);
        assert_eq!(tags(MAX_LINE + 1), [("P".to_owned(), MAX_LINE), ("F".to_owned(), 1)]);
        assert_eq!(tags(2 * MAX_LINE).len(), 2);
    }

    #[test]
    fn rotation_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let config = LogConfig { path: path.clone(), max_size: Some(10), max_files: Some(3) };
        let mut log = LogFile::open(config).unwrap();
        for i in 0..6 {
            log.buffer.extend_from_slice(format!("entry number {i}\n").as_bytes());
            log.flush();
        }
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        let texts: Vec<_> = names.iter().map(|n| fs::read_to_string(n).unwrap()).collect();
        assert_eq!(texts, ["", "entry number 4\n", "entry number 5\n"]);
    }
}
