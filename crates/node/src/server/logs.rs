//! `/containerLogs`: a container's CRI log files, filtered as asked, followed if asked.

use std::collections::VecDeque;
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
        let mut output = Output { sender, left: options.limit, timestamps: options.timestamps };
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
}

impl Output {
    /// Sends one line of a log file; false once the reader has had enough.
    fn line(&mut self, line: &Line) -> bool {
        let mut text = Vec::with_capacity(line.bytes.len());
        if self.timestamps {
            text.extend_from_slice(line.time().as_bytes());
            text.push(b' ');
        }
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
        let partial = self.field(2).starts_with(b"P");
        if partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text }
    }

    fn is_since(&self, since: Option<Time>) -> bool {
        since.is_none_or(|since| Time::parse(&self.time()).is_none_or(|t| t.0 >= since.0))
    }
}

fn next_line(reader: &mut BufReader<File>, partial: &mut Vec<u8>) -> io::Result<Option<Line>> {
    let mut limited = io::Read::take(&mut *reader, (MAX_LINE - partial.len().min(MAX_LINE - 1)) as u64);
    limited.read_until(b'\n', partial)?;
    let whole = partial.ends_with(b"\n") || partial.len() >= MAX_LINE;
    Ok(whole.then(|| Line { bytes: std::mem::take(partial) }))
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

fn read(path: &Path, options: &Options, runs: impl Fn() -> bool, output: &mut Output) -> io::Result<()> {
    let mut kept: VecDeque<Line> = VecDeque::new();
    let all = files(path)?;
    let mut last = None;
    let mut partial = Vec::new();
    for file in all {
        let mut reader = match File::open(&file) {
            Ok(file) => BufReader::new(file),
            // Rotated away between listing and opening.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        partial.clear();
        while let Some(line) = next_line(&mut reader, &mut partial)? {
            if !line.is_since(options.since) {
                continue;
            }
            match options.tail {
                None if !output.line(&line) => return Ok(()),
                None => {}
                Some(most) => {
                    kept.push_back(line);
                    if kept.len() > most {
                        kept.pop_front();
                    }
                }
            }
        }
        last = Some(reader);
    }
    for line in kept {
        if !output.line(&line) {
            return Ok(());
        }
    }
    match last {
        Some(reader) if options.follow => follow(path, reader, partial, runs, output),
        _ => Ok(()),
    }
}

fn follow(
    path: &Path,
    mut reader: BufReader<File>,
    mut partial: Vec<u8>,
    runs: impl Fn() -> bool,
    output: &mut Output,
) -> io::Result<()> {
    let mut quiet = 0_u32;
    loop {
        // Asked before reading: what is written before the end is read after this.
        let over = quiet.is_multiple_of(5) && !runs();
        let mut any = false;
        while let Some(line) = next_line(&mut reader, &mut partial)? {
            any = true;
            if !output.line(&line) {
                return Ok(());
            }
        }
        if std::fs::metadata(path).is_ok_and(|m| reader.get_ref().metadata().is_ok_and(|o| o.ino() != m.ino())) {
            // Rotated: the rest of the old file was read above.
            reader = BufReader::new(File::open(path)?);
            reader.seek(SeekFrom::Start(0))?;
            partial.clear();
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
        let mut output = Output { sender, left: options.limit, timestamps: options.timestamps };
        read(&path, options, || false, &mut output).expect("read");
        drop(output);
        let mut out = String::new();
        while let Ok(part) = receiver.try_recv() {
            out += &String::from_utf8_lossy(&part);
        }
        out
    }

    #[test]
    fn filters() {
        let log =
            "2026-01-01T00:00:00.1Z stdout F a\n2026-01-01T00:00:01.1Z stdout P b\n2026-01-01T00:00:02.1Z stderr F c\n";
        let all = || Options { follow: false, timestamps: false, tail: None, since: None, limit: None };
        assert_eq!(lines(&all(), log), "a\nbc\n");
        assert_eq!(lines(&Options { tail: Some(1), ..all() }, log), "c\n");
        assert_eq!(lines(&Options { tail: Some(0), ..all() }, log), "");
        assert_eq!(lines(&Options { limit: Some(3), ..all() }, log), "a\nb");
        assert_eq!(lines(&Options { since: Time::parse("2026-01-01T00:00:02Z"), ..all() }, log), "c\n");
        assert_eq!(lines(&Options { timestamps: true, tail: Some(1), ..all() }, log), "2026-01-01T00:00:02.1Z c\n");
        assert_eq!(lines(&Options { follow: true, ..all() }, log), "a\nbc\n");
    }
}
