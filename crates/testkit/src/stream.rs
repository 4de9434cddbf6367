//! A command that goes on printing: a watch, followed logs.

use crate::eventually;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Killed when dropped.
pub struct Stream {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Stream {
    pub fn start(mut command: Command) -> Stream {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("failed to run {command:?}: {e}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|p| Box::new(p) as Box<dyn Read + Send>),
            child.stderr.take().map(|p| Box::new(p) as Box<dyn Read + Send>),
        ];
        for pipe in pipes.into_iter().flatten() {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    lines.lock().unwrap_or_else(|e| e.into_inner()).push(line);
                }
            });
        }
        Stream { child, lines }
    }

    /// What it has printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Waits until a line contains `text`.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        eventually(Duration::from_secs(30), || {
            let lines = self.lines();
            if lines.iter().any(|l| l.contains(text)) { Ok(()) } else { Err(format!("no {text:?} in {lines:#?}")) }
        });
    }

    /// Waits for the end and answers the exit code.
    #[track_caller]
    pub fn ends(mut self) -> i32 {
        eventually(Duration::from_secs(30), || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            other => Err(format!("still running: {other:?}, {:#?}", self.lines())),
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
