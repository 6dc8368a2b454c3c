//! A terminal with a shell in it: a pseudoterminal, read by a thread.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::libc;
use nix::pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{setsid, tcgetpgrp};

use super::sandbox::Sandbox;

/// What the shell prints when it waits for a command.
pub(crate) const PROMPT: &str = "$ ";

/// A shell in a terminal of its own.
pub(crate) struct Terminal {
    shell: Child,
    keyboard: File,
    screen: Arc<Screen>,
}

/// What has appeared, and was not taken yet.
#[derive(Default)]
struct Screen {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    text: String,
    closed: bool,
    last_change: Option<Instant>,
    echo: Echo,
}

/// The terminal echoes Ctrl-C as `^C`. The program's own words follow on the same line, or,
/// if it has none, the shell's newline: a page shows the key on a line of its own. So it is
/// with a line that was taken before its end had come.
#[derive(Clone, Copy, Default)]
enum Echo {
    #[default]
    Nothing,
    /// Will come, at this place of the text or after it.
    Awaited(&'static str, usize),
    /// Is gone from this place; a newline there belongs to it.
    Seen(usize),
}

impl State {
    fn has_line_or_prompt(&self) -> bool {
        self.text.contains('\n') || self.text == PROMPT
    }

    fn add(&mut self, text: &str) {
        self.text += text;
        self.last_change = Some(Instant::now());
        if let Echo::Awaited(name, from) = self.echo
            && let Some(at) = self.text.get(from..).and_then(|it| it.find(name))
        {
            self.text
                .replace_range(from + at..from + at + name.len(), "");
            self.echo = Echo::Seen(from + at);
        }
        if let Echo::Seen(at) = self.echo
            && self.text.len() > at
        {
            if self.text[at..].starts_with('\n') {
                self.text.remove(at);
            }
            self.echo = Echo::Nothing;
        }
    }
}

/// The environment of a reader who has this repository and a shell: nothing of whoever
/// started us, but what the toolchain needs.
const KEPT: [&str; 6] = [
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "CARGO_TARGET_DIR",
    "USER",
];

impl Terminal {
    /// Starts a shell inside of `sandbox`.
    pub(crate) fn open(sandbox: &Sandbox) -> Result<Terminal> {
        let (master, slave) = pseudoterminal().context("cannot open a terminal")?;
        let mut command = sandbox.command("bash");
        command
            .args(["--norc", "--noprofile", "--noediting", "-i"])
            .env_clear()
            .envs(
                KEPT.into_iter()
                    .filter_map(|it| Some((it, std::env::var_os(it)?))),
            )
            .envs([
                ("PS1", PROMPT),
                ("PS2", "> "),
                ("TERM", "dumb"),
                ("NO_COLOR", "1"),
                ("LC_ALL", "C.UTF-8"),
                ("HISTFILE", ""),
                // The pages leave out what cargo says of its own work.
                ("CARGO_TERM_QUIET", "true"),
                ("CARGO_NET_OFFLINE", "true"),
            ])
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave);
        // SAFETY: between fork and exec the child makes system calls only, and nothing is
        // allocated (signal-safety(7)).
        unsafe { command.pre_exec(take_terminal) };
        let shell = command.spawn().context("cannot run bash")?;
        let keyboard = master.try_clone()?;
        let screen = Arc::new(Screen::default());
        let shared = Arc::clone(&screen);
        thread::spawn(move || watch(master, &shared));
        Ok(Terminal {
            shell,
            keyboard,
            screen,
        })
    }

    pub(crate) fn type_keys(&mut self, keys: &str) -> io::Result<()> {
        self.keyboard.write_all(keys.as_bytes())
    }

    /// Presses a key that the terminal echoes as `name`, and turns into a signal for the job in
    /// the foreground: once there is one.
    pub(crate) fn press(&mut self, code: &str, name: &'static str) -> io::Result<()> {
        let limit = Instant::now() + Duration::from_secs(2);
        while !self.runs_a_program()? && Instant::now() < limit {
            thread::sleep(Duration::from_millis(5));
        }
        let mut state = self.screen.state();
        state.echo = Echo::Awaited(name, state.text.len());
        drop(state);
        self.type_keys(code)
    }

    /// Whether the job in the foreground is a program: before its exec(2) it is still the
    /// shell, whose handlers lose signals. The shell tells nobody when that is over. (A job may
    /// also stay a shell: a loop, say.)
    fn runs_a_program(&self) -> io::Result<bool> {
        let job = tcgetpgrp(&self.keyboard)?;
        let image = fs::read_link(format!("/proc/{job}/exe"));
        Ok(image.is_ok_and(|it| !it.ends_with("bash")))
    }

    /// Waits until a whole line has appeared, and takes it; `None` when the time is over, or
    /// the shell asks for a command instead.
    pub(crate) fn line(&self, deadline: Instant) -> Option<String> {
        let mut state = self.wait(deadline, State::has_line_or_prompt);
        let end = state.text.find('\n')?;
        let line: String = state.text.drain(..=end).collect();
        Some(line.trim_end_matches(['\n', '\r']).to_string())
    }

    /// Waits until an unfinished line is as `wanted`, and takes it: what strace says of a call
    /// that has not returned yet, say. `None` when a whole line, or a prompt, comes instead.
    pub(crate) fn unfinished(
        &self,
        deadline: Instant,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let is_wanted = |state: &State| !state.has_line_or_prompt() && wanted(&state.text);
        let mut state = self.wait(deadline, |state| {
            is_wanted(state) || state.has_line_or_prompt()
        });
        if !is_wanted(&state) {
            return None;
        }
        // The terminal passes on a line and its end one after the other: it may still come.
        state.echo = Echo::Seen(0);
        Some(std::mem::take(&mut state.text))
    }

    /// Waits until the shell asks for a command with nothing else on the screen, or a whole
    /// line has come first. True for the prompt, which is taken.
    pub(crate) fn prompt(&self, deadline: Instant) -> bool {
        let mut state = self.wait(deadline, State::has_line_or_prompt);
        let asks = state.text == PROMPT;
        if asks {
            state.text.clear();
        }
        asks
    }

    /// Waits until the shell asks for a command, whatever else is on the screen.
    pub(crate) fn wait_for_prompt(&self, deadline: Instant) {
        let asks = |text: &str| text == PROMPT || text.ends_with(&format!("\n{PROMPT}"));
        drop(self.wait(deadline, |state| asks(&state.text)));
    }

    /// What is on the screen, untaken.
    pub(crate) fn rest(&self) -> String {
        self.screen.state().text.clone()
    }

    /// When something last appeared.
    pub(crate) fn last_change(&self) -> Option<Instant> {
        self.screen.state().last_change
    }

    fn wait(&self, deadline: Instant, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.screen.state();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if done(&state) || state.closed || left.is_zero() {
                return state;
            }
            let waited = self.screen.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Whatever still runs here ends with its sandbox.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

impl Screen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the child, before the shell: a session of its own, with this terminal. No signal is
/// ignored or blocked, and no descriptor inherited, as they may have been by us.
fn take_terminal() -> io::Result<()> {
    setsid()?;
    // SAFETY: TIOCSCTTY takes an integer; descriptor 0 is the terminal's.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for ignored in [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGPIPE,
        Signal::SIGTSTP,
    ] {
        // SAFETY: the default action runs no code of ours.
        unsafe { signal(ignored, SigHandler::SigDfl) }?;
    }
    // Signal 32 is glibc's own: its posix_spawn may leave it ignored (as cargo's does), and its
    // sigaction does not touch it, so this is the system call.
    let default = [0u64; 4];
    // SAFETY: the kernel reads a struct sigaction, which is no larger than this, and whose
    // default action is all zeros.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, 32, &raw const default, 0, 8) };
    SigSet::empty().thread_set_mask()?;
    // SAFETY: close_range(2) with this flag closes nothing before exec(2).
    unsafe {
        libc::close_range(
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
        )
    };
    Ok(())
}

/// Both sides of a new terminal, which no other program inherits.
fn pseudoterminal() -> Result<(File, File)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let size = Winsize {
        ws_row: 50,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads a Winsize, which outlives the call. (Its result does not matter:
    // only the widths of columns depend on it.)
    unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    let name = ptsname_r(&master)?;
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(name)?;
    Ok((File::from(OwnedFd::from(master)), slave))
}

fn watch(mut master: File, screen: &Screen) {
    let mut buffer = [0; 4096];
    let mut unread = Vec::new();
    // The end is an error on Linux: EIO when nobody holds the other side.
    while let Ok(count) = master.read(&mut buffer)
        && count > 0
    {
        unread.extend_from_slice(&buffer[..count]);
        // A character, or an escape sequence, may be cut in two by a read.
        let whole = match std::str::from_utf8(&unread) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => unread.len(),
        };
        let text: Vec<u8> = unread.drain(..whole).collect();
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        let text = anstream::adapter::strip_str(&text).to_string();
        screen.state().add(&text);
        screen.news.notify_all();
    }
    screen.state().closed = true;
    screen.news.notify_all();
}
