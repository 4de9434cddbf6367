//! `/containerLogs`: a container's CRI log files, filtered as asked, followed if asked.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use canopus_api::{Status, Time};
use http::{Response, StatusCode};
use tokio::sync::mpsc;

use super::{Body, Context, flag, query, streamed};
use crate::planner::State;

/// How often a followed log is looked at. Only while somebody reads it.
const POLL: Duration = Duration::from_millis(100);
/// No line is longer than this; the shim splits longer ones.
const MAX_LINE: usize = 1 << 20;

struct Options {
    follow: bool,
    timestamps: bool,
    tail: Option<usize>,
    since: Option<Time>,
    limit: Option<usize>,
}

impl Options {
    fn parse(text: &str) -> Result<(Options, bool), Status> {
        let pairs = query(text);
        let get = |name: &str| pairs.iter().find(|(k, v)| k == name && !v.is_empty()).map(|(_, v)| v.as_str());
        let number = |name: &str| match get(name).map(str::parse::<u64>) {
            Some(Ok(n)) => Ok(Some(n)),
            Some(Err(_)) => Err(Status::bad_request(format!("invalid {name}"))),
            None => Ok(None),
        };
        let now = canopus_client::now();
        let seconds = number("sinceSeconds")?.map(|s| Time(now.0.saturating_sub_unsigned(s.saturating_mul(1_000_000))));
        let options = Options {
            follow: flag(&pairs, "follow"),
            timestamps: flag(&pairs, "timestamps"),
            tail: number("tailLines")?.and_then(|n| usize::try_from(n).ok()),
            since: seconds.or_else(|| get("sinceTime").and_then(Time::parse)),
            limit: number("limitBytes")?.and_then(|n| usize::try_from(n).ok()),
        };
        Ok((options, flag(&pairs, "previous")))
    }
}

pub(super) async fn serve(context: &Context, which: [&str; 3], text: &str) -> Result<Response<Body>, Status> {
    let (options, previous) = Options::parse(text)?;
    let instance = context.instance(which, previous).await?;
    let id = instance.id.clone();
    let node = context.node.clone();
    let status = context.node.blocking(move |node| node.runtime.container_status(&id)).await;
    let status = status.map_err(Status::internal)?.map_err(Status::internal)?;
    let path = status.spec.log.map(|l| l.path).ok_or_else(|| Status::internal("the container has no log"))?;
    let (sender, receiver) = mpsc::channel(16);
    let (id, over) = (instance.id.clone(), instance.state != State::Running);
    tokio::task::spawn_blocking(move || {
        let runs = move || {
            !over
                && node.runtime.container_status(&id).is_ok_and(|s| s.state == canopus_runtime::ContainerState::Running)
        };
        let mut output = Output { sender, left: options.limit, timestamps: options.timestamps, within: false };
        // The reader went away, or the log: either ends the answer.
        if let Err(error) = read(&path, &options, runs, &mut output) {
            tracing::debug!(%error, log = %path.display(), "ended reading a log");
        }
    });
    let mut response = Response::new(streamed(receiver));
    *response.status_mut() = StatusCode::OK;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    Ok(response)
}

struct Output {
    sender: mpsc::Sender<Bytes>,
    left: Option<usize>,
    timestamps: bool,
    /// The line goes on: its time was told.
    within: bool,
}

impl Output {
    /// Sends one line of a log file; false once the reader has had enough.
    fn line(&mut self, line: &Line) -> bool {
        let mut text = Vec::with_capacity(line.bytes.len());
        if self.timestamps && !self.within {
            text.extend_from_slice(line.time().as_bytes());
            text.push(b' ');
        }
        self.within = line.is_partial();
        text.extend_from_slice(line.payload());
        if let Some(left) = &mut self.left {
            text.truncate(*left);
            *left -= text.len();
        }
        let sent = text.is_empty() || self.sender.blocking_send(Bytes::from(text)).is_ok();
        sent && self.left != Some(0)
    }
}

/// `<time> <stream> <P|F> <text>\n`.
struct Line {
    bytes: Vec<u8>,
}

impl Line {
    fn time(&self) -> String {
        let end = self.bytes.iter().position(|b| *b == b' ').unwrap_or(0);
        String::from_utf8_lossy(&self.bytes[..end]).into_owned()
    }

    fn field(&self, n: usize) -> &[u8] {
        self.bytes.splitn(4, |b| *b == b' ').nth(n).unwrap_or_default()
    }

    /// The text, with its line end unless the line goes on in the next entry.
    fn payload(&self) -> &[u8] {
        let text = self.field(3);
        if self.is_partial() { text.strip_suffix(b"\n").unwrap_or(text) } else { text }
    }

    fn is_partial(&self) -> bool {
        self.field(2).starts_with(b"P")
    }

    fn is_since(&self, since: Option<Time>) -> bool {
        since.is_none_or(|since| Time::parse(&self.time()).is_none_or(|t| t.0 >= since.0))
    }
}

/// The log and what was rotated away of it, oldest first.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut list: Vec<PathBuf> = std::fs::read_dir(parent)?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)))
        .collect();
    list.sort();
    list.push(path.to_owned());
    Ok(list)
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|m| m.ino())
}

/// Reads a log across its rotations, from one file to the one that came after it.
struct Source<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    partial: Vec<u8>,
    /// Where to go on once this file, which nobody writes to any more, is read to its end.
    next: Option<File>,
}

impl<'a> Source<'a> {
    /// Begins with the oldest entry there is, or with the last so many.
    fn open(path: &'a Path, tail: Option<usize>) -> io::Result<Source<'a>> {
        let mut wanted = tail.map(|lines| lines.saturating_add(1));
        let mut first = None;
        for file in files(path)?.iter().rev() {
            let mut file = match File::open(file) {
                // Rotated away, or dropped, between listing and opening.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let at = match &mut wanted {
                None => 0,
                Some(left) => back(&mut file, left)?,
            };
            file.seek(SeekFrom::Start(at))?;
            first = Some(file);
            if wanted == Some(0) {
                break;
            }
        }
        let first = first.ok_or(io::ErrorKind::NotFound)?;
        Ok(Source { path, reader: BufReader::new(first), partial: Vec::new(), next: None })
    }

    fn line(&mut self) -> io::Result<Option<Line>> {
        let room = MAX_LINE - self.partial.len().min(MAX_LINE - 1);
        io::Read::take(&mut self.reader, room as u64).read_until(b'\n', &mut self.partial)?;
        let whole = self.partial.ends_with(b"\n") || self.partial.len() >= MAX_LINE;
        Ok(whole.then(|| Line { bytes: std::mem::take(&mut self.partial) }))
    }

    /// At the end of the file: whether there is more elsewhere. What was written to this file before it was rotated
    /// may come only now, so it is read once more before the next is taken.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some(next) = self.next.take() {
            self.reader = BufReader::new(next);
            self.partial.clear();
            return Ok(true);
        }
        self.next = self.successor()?;
        Ok(self.next.is_some())
    }

    fn successor(&self) -> io::Result<Option<File>> {
        let own = self.reader.get_ref().metadata()?.ino();
        if inode(self.path) == Some(own) {
            return Ok(None);
        }
        loop {
            let all = files(self.path)?;
            // One that was dropped meanwhile is followed by the oldest that is left.
            let at = all.iter().position(|f| inode(f) == Some(own)).map_or(0, |i| i + 1);
            let Some(next) = all.get(at) else { return Ok(None) };
            let file = match File::open(next) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            // Names move while they are looked at: is it still the one behind ours?
            let opened = file.metadata()?.ino();
            let now = files(self.path)?;
            let before = now.iter().position(|f| inode(f) == Some(own));
            if now.iter().position(|f| inode(f) == Some(opened)) == Some(before.map_or(0, |i| i + 1)) {
                return Ok(Some(file));
            }
        }
    }
}

/// Where the last entries of a file begin: `left`, one more than are wanted, goes down by the line ends passed.
fn back(file: &mut File, left: &mut usize) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let mut end = file.metadata()?.len();
    let mut block = vec![0; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        io::Read::read_exact(file, part)?;
        for (at, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            *left -= 1;
            if *left == 0 {
                return Ok(start + at as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

fn read(path: &Path, options: &Options, runs: impl Fn() -> bool, output: &mut Output) -> io::Result<()> {
    let mut source = Source::open(path, options.tail)?;
    let mut quiet = 0_u32;
    loop {
        // Asked before reading: what is written before the end is read after this.
        let over = !options.follow || (quiet.is_multiple_of(5) && !runs());
        let mut any = false;
        while let Some(line) = source.line()? {
            any = true;
            if line.is_since(options.since) && !output.line(&line) {
                return Ok(());
            }
        }
        if source.advance()? {
            continue;
        }
        if over || output.sender.is_closed() {
            return Ok(());
        }
        quiet = if any { 1 } else { quiet.wrapping_add(1) };
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(options: &Options, text: &str) -> String {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("0.log");
        std::fs::write(&path, text).expect("write");
        let (sender, mut receiver) = mpsc::channel(100);
        let mut output = Output { sender, left: options.limit, timestamps: options.timestamps, within: false };
        read(&path, options, || false, &mut output).expect("read");
        drop(output);
        received(&mut receiver)
    }

    fn received(receiver: &mut mpsc::Receiver<Bytes>) -> String {
        let mut out = String::new();
        while let Ok(part) = receiver.try_recv() {
            out += &String::from_utf8_lossy(&part);
        }
        out
    }

    const ALL: Options = Options { follow: false, timestamps: false, tail: None, since: None, limit: None };

    /// Two rotations between two looks, and a line that comes before the first of them.
    #[test]
    fn following_loses_nothing_to_rotation() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("0.log");
        let entry = |text: &str| format!("2026-01-01T00:00:00Z stdout F {text}\n");
        std::fs::write(&path, entry("1")).expect("write");
        let looks = std::cell::Cell::new(0);
        let runs = || {
            looks.set(looks.get() + 1);
            if looks.get() == 2 {
                std::fs::write(&path, entry("1") + &entry("2")).expect("write");
                std::fs::rename(&path, dir.path().join("0.log.20260101-000001")).expect("rotate");
                std::fs::write(&path, entry("3")).expect("write");
                std::fs::rename(&path, dir.path().join("0.log.20260101-000001.0001")).expect("rotate");
                std::fs::write(&path, entry("4")).expect("write");
            }
            looks.get() < 3
        };
        let (sender, mut receiver) = mpsc::channel(100);
        let mut output = Output { sender, left: None, timestamps: false, within: false };
        read(&path, &Options { follow: true, ..ALL }, runs, &mut output).expect("read");
        assert_eq!(received(&mut receiver), "1\n2\n3\n4\n");
        let tail = |n: usize| {
            let (sender, mut receiver) = mpsc::channel(100);
            let mut output = Output { sender, left: None, timestamps: false, within: false };
            read(&path, &Options { tail: Some(n), ..ALL }, || false, &mut output).expect("read");
            received(&mut receiver)
        };
        for (n, wanted) in [(0, ""), (1, "4\n"), (2, "3\n4\n"), (3, "2\n3\n4\n"), (9, "1\n2\n3\n4\n")] {
            assert_eq!(tail(n), wanted, "{n}");
        }
    }

    #[test]
    fn filters() {
        let log =
            "2026-01-01T00:00:00.1Z stdout F a\n2026-01-01T00:00:01.1Z stdout P b\n2026-01-01T00:00:02.1Z stderr F c\n";
        let all = || ALL;
        assert_eq!(lines(&all(), log), "a\nbc\n");
        assert_eq!(lines(&Options { tail: Some(1), ..all() }, log), "c\n");
        assert_eq!(lines(&Options { tail: Some(0), ..all() }, log), "");
        assert_eq!(lines(&Options { limit: Some(3), ..all() }, log), "a\nb");
        assert_eq!(lines(&Options { since: Time::parse("2026-01-01T00:00:02Z"), ..all() }, log), "c\n");
        assert_eq!(lines(&Options { timestamps: true, tail: Some(1), ..all() }, log), "2026-01-01T00:00:02.1Z c\n");
        let joined = "2026-01-01T00:00:00.1Z a\n2026-01-01T00:00:01.1Z bc\n";
        assert_eq!(lines(&Options { timestamps: true, ..all() }, log), joined);
        assert_eq!(lines(&Options { follow: true, ..all() }, log), "a\nbc\n");
    }
}
