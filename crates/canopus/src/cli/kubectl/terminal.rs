//! The terminal in front of the user.

use anyhow::{Context, Result};
use nix::libc;
use nix::sys::termios::{self, SetArg, Termios};
use std::io::IsTerminal;

/// While it lives, the terminal on standard input passes on every key as it is.
pub struct Raw(Termios);

impl Raw {
    /// None when standard input is no terminal.
    pub fn enter() -> Result<Option<Raw>> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin).context("failed to read the terminal's settings")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSADRAIN, &raw).context("failed to change the terminal's settings")?;
        Ok(Some(Raw(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing is left to do when the terminal has gone away.
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);

/// Columns and rows; None when standard output is no terminal.
pub fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills the winsize that the pointer leads to, which outlives the call.
    unsafe { window_size(libc::STDOUT_FILENO, &mut size) }.ok()?;
    Some((size.ws_col, size.ws_row))
}
