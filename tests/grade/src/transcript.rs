//! What a program says on one of its outputs, line by line.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::check::Deadline;

/// Lines kept from the beginning, and from the end.
const KEPT: usize = 200;

/// The bytes kept of a line; a program may forget to end one for ever.
const LINE: usize = 2048;

/// Reads a pipe in a thread of its own, so that the program never waits for
/// the grader, and keeps a bounded part of what came.
#[derive(Debug)]
pub struct Transcript {
    shared: Arc<Shared>,
    /// The thread lets go of the pipe when this end closes.
    hang_up: Option<PipeWriter>,
}

#[derive(Debug, Default)]
struct Shared {
    said: Mutex<Said>,
    news: Condvar,
    holders: Mutex<u32>,
    let_go: Condvar,
}

/// While it lives, a [`Transcript`] does not read.
#[derive(Debug)]
pub struct Held(Arc<Shared>);

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.holders() -= 1;
        self.0.let_go.notify_all();
    }
}

#[derive(Debug, Default)]
struct Said {
    first: Vec<String>,
    last: VecDeque<String>,
    lines: u64,
    panic: Option<String>,
    ended: bool,
}

impl Said {
    fn add(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim_end().to_string();
        self.lines += 1;
        if self.panic.is_none() && line.contains("panicked at") {
            self.panic = Some(line.clone());
        }
        if self.first.len() < KEPT {
            self.first.push(line);
        } else {
            self.last.push_back(line);
            if self.last.len() > KEPT {
                self.last.pop_front();
            }
        }
    }
}

impl Shared {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders(&self) -> MutexGuard<'_, u32> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_let_go(&self) {
        let waited = self.let_go.wait_while(self.holders(), |number| *number > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Transcript {
    /// Starts to read `pipe`.
    ///
    /// # Errors
    /// When the system has no descriptors or no thread left.
    pub fn of(pipe: PipeReader) -> io::Result<Self> {
        let (hung_up, hang_up) = io::pipe()?;
        let shared = Arc::new(Shared::default());
        let listener = Arc::clone(&shared);
        thread::Builder::new()
            .name("transcript".to_string())
            .spawn(move || {
                listen(pipe, &hung_up, &listener);
                listener.said().ended = true;
                listener.news.notify_all();
            })?;
        Ok(Transcript {
            shared,
            hang_up: Some(hang_up),
        })
    }

    /// Waits for a line that satisfies `wanted` and returns it; `None` when
    /// the program closes its output, or the deadline passes, without one.
    pub fn wait_for_line(
        &self,
        deadline: Deadline,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let find = |said: &Said| {
            let mut lines = said.first.iter().chain(&said.last);
            lines.find(|line| wanted(line)).cloned()
        };
        let said = self.wait(deadline, |said| find(said).is_some());
        find(&said)
    }

    /// Waits until so many lines have come in all; says whether they came
    /// before the deadline.
    pub fn wait_for_lines(&self, deadline: Deadline, number: u64) -> bool {
        self.wait(deadline, |said| said.lines >= number).lines >= number
    }

    /// Reads no more until the guard is dropped: the program may fill the pipe,
    /// and must wait then. What is being read just now still comes.
    #[must_use]
    pub fn hold(&self) -> Held {
        *self.shared.holders() += 1;
        Held(Arc::clone(&self.shared))
    }

    /// Waits until the program, and every child that shares the output, has
    /// closed it; says whether that came before the deadline.
    pub fn wait_for_end(&self, deadline: Deadline) -> bool {
        self.wait(deadline, |_| false).ended
    }

    fn wait(&self, deadline: Deadline, enough: impl Fn(&Said) -> bool) -> MutexGuard<'_, Said> {
        let waited =
            self.shared
                .news
                .wait_timeout_while(self.shared.said(), deadline.left(), |said| {
                    !said.ended && !enough(said)
                });
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Closes the grader's end of the pipe, as a reader does that goes away:
    /// from now on a write to it fails with EPIPE.
    pub fn hang_up(&mut self) {
        self.hang_up = None;
        drop(
            self.wait(Deadline::after(std::time::Duration::from_secs(1)), |_| {
                false
            }),
        );
    }

    /// The number of lines so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.shared.said().lines
    }

    /// The message of a Rust panic, if there was one.
    #[must_use]
    pub fn panic(&self) -> Option<String> {
        self.shared.said().panic.clone()
    }

    /// At most `most` of the latest lines.
    #[must_use]
    pub fn tail(&self, most: usize) -> Vec<String> {
        let said = self.shared.said();
        let kept = said.first.len() + said.last.len();
        let lines = said.first.iter().chain(&said.last);
        lines.skip(kept.saturating_sub(most)).cloned().collect()
    }

    /// All that was kept, as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.tail(usize::MAX).join("\n")
    }
}

/// Splits what comes through `pipe` into lines until its end, or until the
/// grader hangs up. The pipe is closed on return.
fn listen(mut pipe: PipeReader, hung_up: &PipeReader, shared: &Shared) {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let mut ready = [
            PollFd::new(pipe.as_fd(), PollFlags::POLLIN),
            PollFd::new(hung_up.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) if ready[1].any() == Some(true) => break,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => break,
        }
        if ready[0].any() != Some(true) {
            continue;
        }
        shared.wait_until_let_go();
        let read = match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let mut said = shared.said();
        for &byte in &buffer[..read] {
            if byte == b'\n' || line.len() == LINE {
                said.add(&line);
                line.clear();
            }
            if byte != b'\n' {
                line.push(byte);
            }
        }
        drop(said);
        shared.news.notify_all();
    }
    if !line.is_empty() {
        shared.said().add(&line);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(5))
    }

    #[test]
    fn a_line_in_two_pieces_is_one_line_and_a_panic_is_remembered() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let transcript = Transcript::of(reader).expect("a thread");
        writer.write_all(b"Listening on ").expect("write");
        writer
            .write_all(b"here\nthread 'main' panicked at x\n")
            .expect("write");
        let line = transcript.wait_for_line(soon(), |line| line.starts_with("Listening"));
        assert_eq!(line.as_deref(), Some("Listening on here"));
        for number in 0..10 * KEPT {
            writeln!(writer, "{number}").expect("write");
        }
        drop(writer);
        assert!(transcript.wait_for_end(soon()));
        assert_eq!(
            transcript.panic().as_deref(),
            Some("thread 'main' panicked at x")
        );
        assert_eq!(transcript.lines(), 10 * KEPT as u64 + 2);
        assert_eq!(transcript.tail(1), ["1999"]);
    }

    #[test]
    fn nothing_is_read_while_the_transcript_is_held() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let transcript = Transcript::of(reader).expect("a thread");
        writer.write_all(b"before\n").expect("write");
        assert!(transcript.wait_for_lines(soon(), 1));
        let held = transcript.hold();
        writer.write_all(b"meanwhile\nafter\n").expect("write");
        let moment = Deadline::after(Duration::from_millis(50));
        assert!(!transcript.wait_for_lines(moment, 2));
        drop(held);
        assert!(transcript.wait_for_lines(soon(), 3));
    }

    #[test]
    fn the_writer_sees_that_the_grader_hung_up() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let mut transcript = Transcript::of(reader).expect("a thread");
        transcript.hang_up();
        let error = writer.write_all(b"anyone?").expect_err("no one");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
